"""Places Bitrix24 automatic calls that upstream systems ask for over RabbitMQ.

Read it in this order: `messages` (the wire), `decision` (what follows from what), `answers` and
`portal` (Bitrix24), `pace` (its limits), `broker`, `topology` and `publisher` (RabbitMQ), `worker`
(request, call, event), `app` (the wiring).
"""
