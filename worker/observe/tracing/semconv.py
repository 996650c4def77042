"""The names of spans and attributes, in one place.

Those of HTTP are stable. Those of messaging are "Development" in OpenTelemetry's semantic conventions 1.42 and may
change with them; https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ is what to compare them with.
"""

from __future__ import annotations

from typing import Final

ERROR_TYPE: Final = "error.type"

# HTTP client spans
HTTP_REQUEST_METHOD: Final = "http.request.method"
HTTP_REQUEST_RESEND_COUNT: Final = "http.request.resend_count"
HTTP_RESPONSE_STATUS_CODE: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
URL_FULL: Final = "url.full"
URL_TEMPLATE: Final = "url.template"

# Messaging spans
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION_NAME: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
MESSAGING_MESSAGE_BODY_SIZE: Final = "messaging.message.body.size"

# The resource
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE_ID: Final = "service.instance.id"

# Our own
OUTCOME: Final = "lock_worker.outcome"
ATTEMPTS: Final = "lock_worker.attempts"
DELIVERY: Final = "lock_worker.delivery"
RULE_ID: Final = "lock_worker.rule_id"
REPLAY_OF: Final = "lock_worker.replay_of"
WAIT_REASON: Final = "lock_worker.wait.reason"
WAIT_SECONDS: Final = "lock_worker.wait.seconds"
