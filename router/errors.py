"""Every way a request can fail: one type each, with what the fronts and the engine need to know about it.

After a `BackendError` the engine tries the plan's next attempt, after any other it gives up; `outcome` says what the
failed attempt tells of its backend. The fronts read `http_status` and `grpc_code`, and the person who reads `detail`
learns what to do. Nobody else maps errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import ClassVar


class Outcome(StrEnum):
    """How an attempt ended, in the three words that breaker, estimators and metrics all understand."""

    SUCCESS = "success"
    IGNORE = "ignore"  # the caller's own fault or hang-up: says nothing about the backend
    DROPPED = "dropped"  # the backend's fault: counts against it


class RouterError(Exception):
    """Base of all typed errors.

    Args:
        detail: One or two sentences: what is wrong and what to do about it.
        field: Where in the request, in dotted form (`inputs.pixels`), if it is about a field.
        retry_after_s: Seconds after which a retry may succeed, if that is known.
        extra: Further members for the problem document, JSON-serialisable.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    http_status: ClassVar[int] = 500
    grpc_code: ClassVar[str] = "INTERNAL"
    outcome: ClassVar[Outcome] = Outcome.IGNORE

    def __init__(
        self,
        detail: str,
        *,
        field: str | None = None,
        retry_after_s: float | None = None,
        extra: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s
        self.extra = extra


class InternalError(RouterError):
    """A defect of ours; the detail never carries a traceback."""


class MalformedBody(RouterError):
    code, title, http_status, grpc_code = "malformed-body", "Malformed body", 400, "INVALID_ARGUMENT"


class InvalidField(RouterError):
    """A header, query or body field with a value that cannot be accepted."""

    code, title, http_status, grpc_code = "invalid-field", "Invalid field", 400, "INVALID_ARGUMENT"


class InvalidTensor(RouterError):
    """A tensor of the wrong dtype or shape, ragged, or with a value that is not finite."""

    code, title, http_status, grpc_code = "invalid-tensor", "Invalid tensor", 400, "INVALID_ARGUMENT"


class UnprocessableImage(RouterError):
    """The image cannot be decoded, or is larger than the model's stages accept."""

    code, title, http_status, grpc_code = "unprocessable-image", "Unprocessable image", 422, "INVALID_ARGUMENT"


class Unauthenticated(RouterError):
    code, title, http_status, grpc_code = "unauthenticated", "Not authenticated", 401, "UNAUTHENTICATED"


class ResidencyForbids(RouterError):
    """No backend of the model stands on a site where data of this class may go."""

    code, title, http_status, grpc_code = "residency-forbids", "Residency forbids", 403, "PERMISSION_DENIED"


class UnknownModel(RouterError):
    code, title, http_status, grpc_code = "unknown-model", "Unknown model", 404, "NOT_FOUND"


class BodyTimeout(RouterError):
    """The body did not arrive in time."""

    code, title, http_status, grpc_code = "body-timeout", "Body too slow", 408, "DEADLINE_EXCEEDED"


class BodyTooLarge(RouterError):
    code, title, http_status, grpc_code = "body-too-large", "Body too large", 413, "RESOURCE_EXHAUSTED"


class UnsupportedMediaType(RouterError):
    code, title, http_status = "unsupported-media-type", "Unsupported media type", 415
    grpc_code = "INVALID_ARGUMENT"


class Unsupported(RouterError):
    """A part of a protocol that this server does not speak."""

    code, title, http_status, grpc_code = "unsupported", "Unsupported", 501, "UNIMPLEMENTED"


class NoBackendAvailable(RouterError):
    """Every permitted backend is down, or every one of them failed on this request."""

    code, title, http_status, grpc_code = "no-backend-available", "No backend available", 503, "UNAVAILABLE"


class DeadlineExceeded(RouterError):
    code, title, http_status, grpc_code = "deadline-exceeded", "Deadline exceeded", 504, "DEADLINE_EXCEEDED"


class BackendError(RouterError):
    """Base of what a backend raises: the next attempt of the plan is tried."""

    code, title, http_status, grpc_code = "backend-failed", "Backend failed", 502, "INTERNAL"
    outcome = Outcome.DROPPED


class BackendFailed(BackendError):
    """The backend answered, but with an error or with something that is not the model's output."""


class FailedTogether(BackendFailed):
    """The backend failed at, or refused, a call that carried several requests: each had better be asked alone."""


class BackendUnavailable(BackendError):
    """The backend cannot be reached, or does not serve the model."""

    code, title, http_status, grpc_code = "backend-unavailable", "Backend unavailable", 503, "UNAVAILABLE"


class NotBegun(BackendUnavailable):
    """The backend was there and says that it has not begun the call, and will not, here: it may be asked once more."""


class BackendTimeout(BackendError):
    """The backend did not answer before the attempt's cut-off."""

    code, title, http_status, grpc_code = "backend-timeout", "Backend timed out", 504, "DEADLINE_EXCEEDED"


class BackendLost(BackendError):
    """The backend went away while the call was under way: it may have been worked on, so it is paid and not retried."""

    code, title, http_status, grpc_code = "backend-lost", "Backend lost", 503, "UNAVAILABLE"


class BackendRejectedInput(BackendError):
    """The backend says that the input is wrong: no sign of ill health, and another backend may accept it."""

    code, title, http_status, grpc_code = "input-rejected", "Input rejected", 400, "INVALID_ARGUMENT"
    outcome = Outcome.IGNORE


class BudgetSpent(BackendError):
    """The budget that the policy file gives the backend has nothing left: no sign of ill health."""

    code, title, http_status, grpc_code = "budget-spent", "Budget spent", 503, "UNAVAILABLE"
    outcome = Outcome.IGNORE


class Overloaded(BackendError):
    """The backend has as much to do as it can, or the request's turn would come too late: it was not asked."""

    code, title, http_status, grpc_code = "overloaded", "Overloaded", 429, "RESOURCE_EXHAUSTED"
    outcome = Outcome.IGNORE
