"""How calls and answers are written: by botocore's own models of the services, so that a name wrong in our answers is an
error here and not a field that the client never sees.

Only what the peer answers itself passes through here; moto reads and writes the rest.
"""

import base64
import json
import uuid
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core.parse import PROTOCOL_PARSERS
from moto.core.utils import get_service_model

# What the credential scope calls a service, and what botocore calls it, where they differ.
MODEL_NAMES = {"servicequotas": "service-quotas"}


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, code: str, message: str, status: int = 400):
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class Answer:
    """What goes back over the wire."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, code: str | None = None):
        self.status, self.headers, self.body = status, headers, body
        self.code = code
        # How a replay of it is made, where things may have changed since.
        self.again: Any = None
        # The instances that a launch made.
        self.machines: list[Any] = []


def request_id() -> str:
    return str(uuid.uuid4())


def model_of(service: str, action: str) -> Any:
    """botocore's model of an operation, or nothing where it knows none."""
    try:
        return get_service_model(MODEL_NAMES.get(service, service)).operation_model(action)
    except Exception:
        return None


def read(service: str, action: str, body: bytes, query: str) -> dict[str, Any]:
    """The parameters of a call, by the names of the service's model."""
    protocol = protocol_of(service)
    if protocol == "json":
        return json.loads(body or b"{}")
    form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)) or dict(
        parse_qsl(query, keep_blank_values=True)
    )
    model = model_of(service, action)
    if model is None:
        return form
    return PROTOCOL_PARSERS[protocol](model).parse({"values": form})


def protocol_of(service: str) -> str:
    if service == "ec2":
        return "ec2"
    if service in ("sts", "iam", "sns"):
        return "query"
    if service in ("ssm", "pricing", "servicequotas", "sqs", "events", "logs", "ce", "budgets", "dynamodb", "kms"):
        return "json"
    return "rest"


def answer(service: str, action: str, result: dict[str, Any]) -> Answer:
    """A result in the shape of the service's model, written as the service writes it."""
    model = model_of(service, action)
    if protocol_of(service) == "json":
        body = json.dumps(result, default=lambda when: stamp_seconds(when)).encode()
        return Answer(200, {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": request_id()}, body)
    said = request_id()
    parts = [f'<?xml version="1.0" encoding="UTF-8"?>\n<{action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">']
    parts.append(f"<requestId>{said}</requestId>")
    if model.output_shape is not None:
        members(parts, model.output_shape, result)
    parts.append(f"</{action}Response>")
    return Answer(200, {"Content-Type": "text/xml;charset=UTF-8", "x-amzn-RequestId": said}, "".join(parts).encode())


def members(parts: list[str], shape: Any, value: dict[str, Any]) -> None:
    """The members of a structure; one that the model does not have is a mistake of the peer."""
    known = shape.members
    for name, held in value.items():
        if held is None:
            continue
        if name not in known:
            raise KeyError(f"{shape.name} has no {name}")
        element(parts, known[name].serialization.get("name", name), known[name], held)


def element(parts: list[str], name: str, shape: Any, value: Any) -> None:
    kind = shape.type_name
    parts.append(f"<{name}>")
    if kind == "structure":
        members(parts, shape, value)
    elif kind == "list":
        inner = shape.member
        item = inner.serialization.get("name", "item")
        for held in value:
            element(parts, item, inner, held)
    else:
        parts.append(scalar(kind, value))
    parts.append(f"</{name}>")


def scalar(kind: str, value: Any) -> str:
    if kind == "boolean":
        return "true" if value else "false"
    if kind == "timestamp":
        return stamp(value)
    if kind == "blob":
        return base64.b64encode(value).decode()
    return escape(str(value))


def stamp(when: datetime) -> str:
    """As EC2 writes a moment: 2026-11-23T04:05:06.000Z."""
    return when.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def stamp_seconds(when: Any) -> float:
    if isinstance(when, datetime):
        return when.timestamp()
    raise TypeError(f"no JSON for {when!r}")


def refusal(service: str, refused: Refused) -> Answer:
    """An error as the service writes it."""
    code, message, said = refused.code, refused.message, request_id()
    protocol = protocol_of(service)
    if protocol == "json":
        body = json.dumps({"__type": code, "message": message})
        headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": code}
    elif protocol == "ec2":
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
            f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
            f"</Error></Errors><RequestID>{said}</RequestID></Response>"
        )
        headers = {"Content-Type": "text/xml;charset=UTF-8"}
    elif protocol == "query":
        kind = "Sender" if refused.status < 500 else "Receiver"
        body = (
            f'<ErrorResponse xmlns="https://{service}.amazonaws.com/doc/"><Error><Type>{kind}</Type>'
            f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
            f"<RequestId>{said}</RequestId></ErrorResponse>"
        )
        headers = {"Content-Type": "text/xml"}
    else:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Error>'
            f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message><RequestId>{said}</RequestId></Error>"
        )
        headers = {"Content-Type": "application/xml"}
    headers["x-amzn-RequestId"] = said
    return Answer(refused.status, headers, body.encode(), code)
