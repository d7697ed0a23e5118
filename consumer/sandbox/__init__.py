"""A stand-in Bitrix24 portal, to try the worker on: nobody is phoned.

It answers as the real one does by its documentation (https://apidocs.bitrix24.com), by what is
known of its kernel and by what people measured on live portals; it was written from those notes and
from no client. Which number is called decides what comes back (`NUMBERS`), the `Switches` what kind
of portal it is.

`answers` is the table of all it can say, `replies` the forms of that, `numbers` which number gets
which answer. `portal` is its state, `gates` the order of its checks, `rules` those that need no
state, `limits` its two limits, `methods` what else it can be asked, `history` the call statistics.
`app` is the HTTP, `parameters` how PHP reads a request, `control` what steers the sandbox,
`oauth` its codes and tokens. It has no ``batch``, no events, and needs no HTTPS.
"""

from consumer.sandbox.answers import ANSWERS, Answer
from consumer.sandbox.app import create_app
from consumer.sandbox.numbers import NUMBERS, Number
from consumer.sandbox.portal import SandboxPortal
from consumer.sandbox.switches import Switches

__all__ = ["ANSWERS", "NUMBERS", "Answer", "Number", "SandboxPortal", "Switches", "create_app"]
