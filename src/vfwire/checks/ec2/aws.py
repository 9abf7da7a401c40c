"""The door to AWS: one region's clients, every request counted, every failure one of our errors.

boto3 is imported here and only here, when a session is opened. Throttled requests are retried by botocore itself, in
its adaptive mode (AWS SDKs and Tools Reference Guide, "Retry behavior"): back-off, and a rate that follows the answers.
"""

import contextlib
import copy
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from threading import Event, Lock
from typing import TYPE_CHECKING, Any

from vfwire import __version__
from vfwire.errors import CannotTell, UnsupportedMachine, UsageError, VfwireError

if TYPE_CHECKING:
    from types_boto3_ec2.client import EC2Client
    from types_boto3_ssm.client import SSMClient

WORKERS = 8
_ATTEMPTS = 10
_CONNECT_S, _READ_S = 10, 60

_DENIED = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}
_REFUSED = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_THROTTLED = {"RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequestsException"}


class Aws:
    """One account's one region.

    stopping: set when nothing more is wanted; whoever waits for AWS in a thread looks at it.
    requests: how often each action was asked for, retries included, as {"ec2:DescribeInstances": 5}.
    Raises UnsupportedMachine without boto3, UsageError for a profile or region that is none.
    """

    def __init__(
        self,
        profile: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        workers: int = WORKERS,
    ) -> None:
        boto3, config = _boto3()
        self._endpoint_url = endpoint_url
        self._lock = Lock()
        self.stopping = Event()
        self.requests: Counter[str] = Counter()
        self._config = config.Config(
            retries={"mode": "adaptive", "max_attempts": _ATTEMPTS},
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            max_pool_connections=workers + 1,  # the thread that asks for pages besides
            user_agent_extra=f"vfwire/{__version__}",
        )
        with told():
            self._session = boto3.Session(profile_name=profile, region_name=region)
        self._session.events.register("before-send", self._count)
        if self._session.region_name is None:
            raise UsageError("no region is set", "give --region eu-west-1, or set AWS_DEFAULT_REGION")
        self.region: str = self._session.region_name

    def _count(self, event_name: str, **_rest: Any) -> None:
        _, service, operation = event_name.split(".", 2)
        with self._lock:
            self.requests[f"{service}:{operation}"] += 1

    def in_region(self, name: str) -> "Aws":
        """The same account's other region: its requests are counted here."""
        other = copy.copy(self)
        other.region, other.stopping = name, Event()
        for client in ("ec2", "ssm"):
            other.__dict__.pop(client, None)
        return other

    @cached_property
    def ec2(self) -> "EC2Client":
        with told():
            client: EC2Client = self._session.client(
                "ec2", self.region, endpoint_url=self._endpoint_url, config=self._config
            )
        return client

    @cached_property
    def ssm(self) -> "SSMClient":
        with told():
            client: SSMClient = self._session.client(
                "ssm", self.region, endpoint_url=self._endpoint_url, config=self._config
            )
        return client


def _boto3() -> tuple[Any, Any]:
    try:
        import boto3
        from botocore import config
    except ImportError:
        raise UnsupportedMachine(
            "boto3, the AWS SDK for Python, is not installed", "pip install 'vfwire[ec2]'"
        ) from None
    return boto3, config


class AwsRefused(CannotTell):
    """AWS answered, and the answer is an error. code: AWS's own name for it."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn what boto3 raises into one of our errors, with its cause and the next step."""
    from botocore import exceptions as botocore

    try:
        yield
    except botocore.ClientError as error:
        raise _of_answer(error.response.get("Error", {}), error.operation_name) from None
    except botocore.BotoCoreError as error:
        raise _of_boto(error) from None


def _of_answer(answer: Any, operation: str) -> AwsRefused:
    code, message = answer.get("Code", "?"), " ".join(str(answer.get("Message", "")).split())
    if code in _DENIED:
        text = f"AWS does not allow {operation} to these credentials ({code})"
        return AwsRefused(
            code, text, "vfwire ec2 check --iam-policy and enable --iam-policy print what is needed"
        )
    if code in _REFUSED:
        text = f"AWS does not accept the credentials ({code})"
        return AwsRefused(code, text, "renew them: aws sso login, or another --profile")
    if code in _THROTTLED:
        text = f"AWS throttles {operation}, {_ATTEMPTS} attempts with back-off included"
        return AwsRefused(code, text, "run it again later, or with fewer --workers")
    return AwsRefused(code, f"{operation}: {code}: {message.rstrip('.')}")


def _of_boto(error: Exception) -> VfwireError:
    from botocore import exceptions as botocore

    cause = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, botocore.ProfileNotFound):
        return UsageError(cause, "aws configure list-profiles shows the ones there are")
    if isinstance(error, botocore.NoRegionError | botocore.InvalidRegionError):
        return UsageError(cause, "give --region eu-west-1, or set AWS_DEFAULT_REGION")
    if isinstance(error, botocore.ParamValidationError):
        return UsageError(cause)
    if isinstance(
        error,
        botocore.NoCredentialsError
        | botocore.PartialCredentialsError
        | botocore.CredentialRetrievalError
        | botocore.TokenRetrievalError
        | botocore.SSOError,
    ):
        return CannotTell(
            f"AWS wants credentials: {cause}", "set AWS_PROFILE, give --profile, or run aws configure"
        )
    if isinstance(error, botocore.HTTPClientError | botocore.ConnectionError):
        return CannotTell(cause, "look at the network, --region and --endpoint-url")
    return CannotTell(cause)
