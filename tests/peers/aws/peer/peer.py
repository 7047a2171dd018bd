"""One account at AWS: what it holds, and the way of a call through it.

Throttled, denied, faulty, tried dry, replayed: in this order, before what answers the call, which is one of ours where
there is one and moto where not.
"""

import threading
import time
import traceback
from typing import Any
from urllib.parse import parse_qsl

from . import catalogue  # noqa: F401, I001: before moto reads what it is to leave out
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from . import wire
from .access import dry, dry_run
from .clock import Clock
from .faults import STATUS, Faults
from .server import Dropped
from .tokens import Tokens
from .wire import Answer, Refused

ACCOUNT = "123456789012"

# Calls that wait inside moto for something to come: they must not keep the others waiting.
WAITING = ("sqs", "s3")


class Call:
    """A call as it came."""

    def __init__(self, environ: dict[str, Any], body: bytes):
        self.environ, self.body = environ, body
        self.account = ACCOUNT
        self.service, self.region = scope_of(environ)
        self.form: dict[str, str] = {}
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        if target:
            self.action = target.rpartition(".")[2]
        else:
            if wire.protocol_of(self.service) != "rest":
                text = body.decode("utf-8", "replace") or environ["QUERY_STRING"]
                self.form = dict(parse_qsl(text, keep_blank_values=True))
            self.action = self.form.get("Action") or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.params: dict[str, Any] = {}

    def text(self) -> str:
        return self.environ["PATH_INFO"] + "?" + self.environ["QUERY_STRING"] + self.body.decode("utf-8", "replace")

    def parse(self) -> None:
        if wire.protocol_of(self.service) != "rest":
            self.params = wire.read(self.service, self.action, self.body, self.environ["QUERY_STRING"])

    def __getitem__(self, name: str) -> Any:
        return self.params.get(name)


def ordered(order: dict[str, Any]) -> Refused:
    code = order["code"]
    return Refused(code, order.get("message", code), order.get("status") or STATUS.get(code, 400))


def scope_of(environ: dict[str, Any]) -> tuple[str, str]:
    """The service and the region that the signature names."""
    signed = environ.get("HTTP_AUTHORIZATION", "")
    scope = signed.split("Credential=")[-1].split(",")[0].split("/")
    if len(scope) < 5:
        return "s3", "us-east-1"
    return scope[3], scope[2]


class Peer:
    def __init__(self, types: list[str]):
        self.types_at_start = types
        self.port = 0
        # One call at a time: moto is not made for several, and tests want to know what happened in which order.
        self.lock = threading.RLock()
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.clean()

    def clean(self) -> None:
        """All that a reset forgets."""
        # Here, not above: they import this package's parts that import moto's.
        from .access import Access
        from .capacity import Capacity
        from .catalogue import Catalogue
        from .events import Events
        from .instances import Instances
        from .prices import Prices
        from .quotas import Quotas
        from .spot import Spot
        from .throttle import Throttle

        self.clock = Clock()
        self.skew_seconds = 0.0
        self.log: list[dict[str, Any]] = []
        self.faults = Faults()
        self.tokens = Tokens()
        self.instances = Instances(self)
        self.capacity = Capacity(self)
        self.catalogue = Catalogue(self.types_at_start)
        self.quotas = Quotas(self)
        self.prices = Prices(self)
        self.spot = Spot(self)
        self.events = Events(self)
        self.access = Access(self)
        self.throttle = Throttle(self)
        self.fleets: dict[str, dict[str, Any]] = {}

    def reset(self) -> None:
        import moto.backends
        from moto.ec2.models import ec2_backends

        for backend in (ec2_backends,):
            backend.reset()
        for app in list(self.moto.app_instances):
            moto.backends.get_backend(app).reset()
        self.clean()

    def warm(self) -> None:
        """Loads what the first call would wait for."""
        from moto.ec2.models import ec2_backends

        with self.lock:
            wire.model_of("ec2", "RunInstances")
            # What the first region loads is that of all.
            ec2_backends[ACCOUNT]["us-east-1"]

    def backend(self, call: Call) -> Any:
        """moto's EC2 of a region."""
        from moto.ec2.models import ec2_backends

        return ec2_backends[call.account][call.region]

    def started(self, machines: list[Any], spec: dict[str, Any]) -> None:
        """What comes with instances that started."""
        for machine in machines:
            if machine.lifecycle == "spot":
                self.spot.request(machine, spec)
            self.events.state(machine, "pending")

    def zone_of_subnet(self, call: Call, subnet: str) -> str:
        from moto.ec2.exceptions import InvalidSubnetIdError

        try:
            return self.backend(call).get_subnet(subnet).availability_zone
        except InvalidSubnetIdError:
            return ""

    def serve(self, environ: dict[str, Any], body: bytes, began: float) -> Answer:
        """A call, from its first byte to its answer."""
        call = Call(environ, body)
        entry = {"at": self.clock.seconds(), "wall": time.time(), "service": call.service, "region": call.region}
        entry |= {"action": call.action, "status": None, "code": None}
        with self.lock:
            entry["n"] = len(self.log) + 1
            self.log.append(entry)
        code: str | None = None
        try:
            answer = self.answer(call, entry)
            code = answer.code
        except Dropped:
            entry |= {"status": 0, "code": "dropped"}
            raise
        except Refused as refused:
            answer, code = wire.refusal(call.service, refused), refused.code
        except Exception as error:
            # A fault of this peer, and not one that a client should ever meet.
            traceback.print_exc()
            code = "PeerFailed"
            answer = wire.refusal(call.service, Refused(code, f"the peer failed at {call.action}: {error!r}", 500))
        finally:
            entry["took_ms"] = round((time.perf_counter() - began) * 1000, 3)
        entry |= {"status": answer.status, "code": code}
        return answer

    def answer(self, call: Call, entry: dict[str, Any]) -> Answer:
        call.parse()
        entry["params"] = call.params
        with self.lock:
            self.clock.settle()
            self.throttle.check(call)
            self.access.check(call, entry)
            order = self.faults.first(call)
        if order is not None:
            entry["fault"] = order
            if order.get("delay_ms"):
                time.sleep(order["delay_ms"] / 1000)
                entry["delayed_ms"] = order["delay_ms"]
            if order.get("drop") == "later":
                self.later(call, entry, float(order.get("later_secs", 1)))
            if order.get("drop") in ("before", "later"):
                raise Dropped
            if order.get("code") and not order.get("after_effect"):
                raise ordered(order)
        if dry(call):
            raise dry_run()
        if call.service in WAITING:
            answer = self.effect(call)
        else:
            began = time.perf_counter()
            with self.lock:
                entry["queued_ms"] = round((time.perf_counter() - began) * 1000, 3)
                self.clock.settle()
                answer = self.once(call, entry)
        if order is not None and order.get("drop") == "after":
            raise Dropped
        if order is not None and order.get("code"):
            raise ordered(order)
        return answer

    def later(self, call: Call, entry: dict[str, Any], seconds: float) -> None:
        """Has a call take effect when nobody waits for it any more."""

        def act() -> None:
            try:
                entry["later"] = self.once(call, entry).status
            except Refused as refused:
                entry["later"] = refused.code

        with self.lock:
            self.clock.at(self.clock.seconds() + seconds, act)

    def once(self, call: Call, entry: dict[str, Any]) -> Answer:
        """What the call does, unless its token says that it was done."""
        scope = self.tokens.scope(self, call)
        if scope is not None:
            kept = self.tokens.replay(scope, call)
            if kept is not None:
                entry["replayed"] = True
                return kept.again() if kept.again is not None else kept
        answer = self.effect(call)
        if scope is not None and answer.status < 300:
            self.tokens.keep(scope, call, answer)
        return answer

    def effect(self, call: Call) -> Answer:
        from .answers import ANSWERS

        ours = ANSWERS.get((call.service, call.action))
        if ours is None:
            return self.ask_moto(call)
        from moto.core.exceptions import ServiceException
        from moto.ec2.exceptions import EC2ClientError

        try:
            result = ours(self, call)
        except EC2ClientError as error:
            raise Refused(error.code, error.message) from error
        except ServiceException as error:
            raise Refused(error.code, error.message) from error
        return result if isinstance(result, Answer) else wire.answer(call.service, call.action, result)

    def ask_moto(self, call: Call) -> Answer:
        """What moto answers."""
        said: dict[str, Any] = {}

        def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            said.update(status=int(status.split()[0]), headers=dict(headers))

        call.environ["wsgi.input"].seek(0)
        try:
            parts = self.moto(call.environ, start)
            body = b"".join(parts)
        except NotImplementedError as error:
            raise Refused("InvalidAction", f"neither this peer nor moto has {call.action}: {error}", 501) from error
        except Exception as error:
            traceback.print_exc()
            raise Refused("InternalFailure", f"moto failed at {call.action}: {error!r}", 500) from error
        code = None
        if said["status"] >= 400:
            text = body.decode("utf-8", "replace")
            code = text.partition("<Code>")[2].partition("</Code>")[0]
            code = code or said["headers"].get("x-amzn-ErrorType") or text.partition('"__type": "')[2].partition('"')[0]
        return Answer(said["status"], said["headers"], body, code)
