"""All that is known of Bitrix24: its errors, its answers, its call history, its HTTP."""
