"""All that is known of RabbitMQ and FastStream: links, queues, how messages come and go."""
