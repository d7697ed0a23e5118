"""What keeps the worker within the portal's limits, and from calling in vain."""
