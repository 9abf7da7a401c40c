"""The local endpoint: start it, put instances into it, see what it is asked, make it refuse, throttle or hold."""

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")  # read when moto's backend is made

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.utils import random_ami_id
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.ec2_endpoint import guests, rules

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": REGION}
_EC2_ERROR = (
    "<Response><Errors><Error><Code>{0}</Code><Message>{1}</Message></Error></Errors>"
    "<RequestID>0</RequestID></Response>"
)

Hook = Callable[[str, str], bool | None]


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: Any, **__: Any) -> None:
        """Nothing: the calls are kept in a list."""


class Endpoint:
    """calls: every action, as "ec2:StopInstances". throttled: how many more requests of an action to throttle.
    denied: actions that are not allowed. hook: called with an action and "before" or "after" it took effect; what it
    says True to before has no effect.
    """

    def __init__(self) -> None:
        rules.install()
        guests.install()
        self._app = DomainDispatcherApplication(create_backend_app)
        self.calls: list[str] = []
        self.throttled: Counter[str] = Counter()
        self.denied: set[str] = set()
        self.hook: Hook | None = None
        self.region = REGION

    @property
    def backend(self) -> Any:
        return ec2_backends[DEFAULT_ACCOUNT_ID][self.region]

    @contextmanager
    def elsewhere(self, region: str) -> Iterator[None]:
        """What is launched meanwhile is in another region."""
        self.region = region
        try:
            yield
        finally:
            self.region = REGION

    def clear(self) -> None:
        """As new: no instance, no image, no rule of a test's own."""
        ec2_backends.reset()
        guests.clear()
        self.calls.clear()
        self.throttled.clear()
        self.denied.clear()
        self.hook = None

    def image(
        self, *, ena: bool = False, sriov: bool = False, virtualization: str = "hvm", root: str = "ebs"
    ) -> str:
        """An AMI with these flags, and its ID."""
        ami = self.backend.register_image(f"image-{random_ami_id()}", "")
        ami.ena_support, ami.sriov_net_support = ena, "simple" if sriov else None
        ami.virtualization_type, ami.root_device_type, ami.architecture = virtualization, root, "x86_64"
        name: str = ami.id
        return name

    def launch(
        self, type_name: str, image_id: str, guest: guests.Guest | None = None, count: int = 1
    ) -> list[Any]:
        """Running instances, each a reservation of its own; `guest` says what is installed in them."""
        launched = []
        for _ in range(count):
            reservation = self.backend.run_instances(
                image_id,
                1,
                None,
                [],
                instance_type=type_name,
                is_instance_type_default=False,
                region_name=self.region,
            )
            launched.append(reservation.instances[0])
        for one in launched:
            guests.install_in(one, guest or guests.Guest())
        return launched

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        action = _action(environ, body)
        self.calls.append(action)
        if self.hook and self.hook(action, "before"):
            return _refuse(action, "Dropped", "Dropped.", start_response)
        if refusal := self._refusal(action):
            return _refuse(action, *refusal, start_response)
        answer = list(self._app(environ, start_response))
        if self.hook:
            self.hook(action, "after")
        return answer

    def _refusal(self, action: str) -> tuple[str, str] | None:
        ec2 = action.startswith("ec2:")
        if self.throttled[action] > 0:
            self.throttled[action] -= 1
            return ("RequestLimitExceeded" if ec2 else "ThrottlingException"), "Request limit exceeded."
        if action in self.denied:
            return ("UnauthorizedOperation" if ec2 else "AccessDeniedException"), "Not authorized."
        return None


def _action(environ: dict[str, Any], body: bytes) -> str:
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return f"ssm:{target.rpartition('.')[2]}"
    return "ec2:" + parse_qs(body.decode()).get("Action", ["?"])[0]


def _refuse(action: str, code: str, message: str, start_response: Callable[..., Any]) -> list[bytes]:
    if action.startswith("ec2:"):
        text, kind = _EC2_ERROR.format(code, message), "text/xml"
    else:
        text, kind = f'{{"__type": "{code}", "message": "{message}"}}', "application/x-amz-json-1.1"
    status = "503 Slow down" if "Limit" in code else "400 Refused"
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(text)))])
    return [text.encode()]


@contextmanager
def serving() -> Iterator[tuple[Endpoint, str]]:
    """An endpoint on a free port of loopback, and its URL."""
    endpoint = Endpoint()
    endpoint.clear()
    server = make_server("127.0.0.1", 0, endpoint, threaded=True, request_handler=_Quiet)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        endpoint.clear()
