"""Places the phone calls that other systems ask for: requests from RabbitMQ, calls by Bitrix24.

The path of a message:

    delivery > ledger entry > step > limits > portal > outcome > decision > entry > publish > ack

The modules at the top, in reading order:

    app             a worker: its parts, the start, the stop
    parts           what a worker is made of: the broker's, the portal's, the records'
    assembly        joins those parts: on the way of a request, and beside the calls
    startup         the steps of a start, tried until broker and ledger are there
    shutdown        the steps of a stop, each with a limit
    heartbeat       a worker's sign of life in the ledger
    housekeeping    what runs beside the calls: watchdog, queue depths, retention
    readiness       how the parts are, in words, and whether the worker is ready
    blocks          which requests an operator wants nobody to be phoned for
    events          the contract out: call.started, call.failed and call.completed
    delivery        a received message, read once
    worker          one task for each request id; the acknowledgement
    processor       one request: read the ledger, take a step
    canceller       cancellations in: the ledger decides whether each came in time
    steps           what a message asks for, given the ledger's entry (pure)
    results         what a step came to, and the entry that follows (pure)
    attempts        one attempt: our own rules, the turn, the claim, the call
    controls        what operators say while workers run: paused, blocked
    interruptible   which tasks only wait, so that they may be cancelled
    caller          one call within the limits
    decision        what the outcome of a call leads to (pure)
    reconciler      asks the call history about a call whose answer was lost
    findings        what a look into the call history shows
    reconciliation  what such a look-up leads to (pure)
    history         reads the portal's call history, and knows how far to trust it
    follower        reads on in the history, and notes how calls ended
    completed       publishes how calls ended
    way_in          which way into the portal the settings name
    oauth           the way in by tokens, which all workers share
    login_watch     whether somebody must log in by OAuth, and whether somebody has
    probe           a harmless question to the portal, while the worker is paused
    recorder        what a step came to: written to the ledger, then published
    announcer       which messages belong to which state (pure)
    settings        all settings, their defaults, and what they may be
    environment     reads the settings, once: variables, .env, files
    addresses       the addresses among the settings
    log             structured logs, without secrets
    masking         hides secrets, numbers and texts
    metrics         what Prometheus reads
    health          /livez, /readyz, /metrics
    errors          the base of all errors that a person reads
    unreachable     why a server could not be reached
    output          what commands print

The rooms, each for one thing outside, or one kind of work:

    messages/       bodies, requests, cancellations, endings, formats, numbers, local_time: the
                    contract in, how its fields are written, and how calls end
    bitrix24/       errors, lookup, known_words, responses, call_history, call_endings, portal,
                    transport, redaction, access, tokens, token_server, seal, scopes: all that is
                    known of Bitrix24
    rabbitmq/       subscription, connection, rights, refusals, losses, topology, declaration,
                    topology_upkeep, outgoing, publisher, last_tries, confirming_link, browser,
                    queue_counts, unread, lease, policies: all that is known of RabbitMQ and
                    FastStream
    ledger/         entry, changes, ledger, statements, search, earlier, completions, follow_lease,
                    letter_acts, published, controls, workers, about, tokens, store, sqlite,
                    postgres, ages, beginning, recovery: what was done for which request
    limits/         rate_limiter, circuit_breaker, fault, calling_hours, own_rules: how fast to
                    call, when and whom, and when not at all
    tracing/        spans, pipeline: traces by OpenTelemetry, and nothing where they are off
    operations/     dead_letter, choice, filters, moments, dead_letters, survey, deaths, evictions,
                    turns, controls, check, check_broker, check_policies, check_work, check_ledger,
                    check_login, check_portal, finding, login, portal, pauses, ledger_at_hand,
                    report, reports, proof, timeline, waits, edits, replay_plan, replay_warnings,
                    planning, notes, carry_out, jobs, proposals, orders, forms, rights, sign_in,
                    wording, status, last_day, upstream: what the commands and the pages do
    web/            app, guard, sessions, sign_in, visit, now, letters, acts, live: the operators'
                    pages
    cli/            main, program, run, check, login, portal, schema, upstream, cancel, orders,
                    pause, blocks, show, status, dlq, dead_letters, filters, ids, plan, replay,
                    discard, progress, sandbox, tour, web, console: the commands
    sandbox/        app, control, parameters, portal, gates, rules, answers, replies, numbers,
                    history, limits, methods, oauth, request, switches: a stand-in portal
    demo/           tour, requests, screen, account, environment, broker, private_node, login, ways,
                    signals, installer: the demo and its throwaway broker

`python -m consumer` (`__main__`) is `call-consumer`. Imports point down only; the layers are in
pyproject.toml, and CONTRIBUTING.md says where a change belongs.
"""
