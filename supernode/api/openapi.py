"""GET /api/v1/openapi.json: the API of jobs and registry events as an OpenAPI 3.1 document.

tests hold it to the routes and to real answers.

What is below /v1/ is for this release's own programs, and is described in docs/protocol.md alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from proto import VERSION
from supernode.jobs.job import JobState
from supernode.registry_events.event import EventState
from supernode.registry_events.harbor import CLOUD_EVENTS
from supernode.registry_events.notifications import MEDIA_TYPES

if TYPE_CHECKING:
    from supernode.api.parts import ApiParts

_NOTIFIED: Final = (*MEDIA_TYPES, CLOUD_EVENTS, "application/json")
_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string"}

_JOB: Final[dict[str, Any]] = {
    "number": {"type": "integer", "minimum": 1},
    "image": _TEXT,
    "platforms": {"type": "array", "items": _TEXT, "description": "empty: all that the image is built for"},
    "to": _TEXT,
    "by": {**_TIME, "description": "not done by then, it has failed"},
    "after": {**_TIME, "description": "it waits until then"},
    "cause": {"type": "string", "description": "the registry event that it comes of, or harbor; empty for operators"},
    "keep": {"type": "boolean", "description": "nodes are not to evict it, and later ones are to have it"},
    "kept": {"type": "boolean", "description": "they are told so now: until it is cancelled, or asked for anew"},
    "state": {
        "type": "string",
        "enum": [state.value for state in JobState],
        "description": "waiting, resolving and running come in turn, until it is done, failed (for good) or cancelled",
    },
    "attempts": _COUNT,
    "error": {"type": "string", "description": "why the last attempt failed; empty while none has"},
    "digest": {"type": "string", "description": "what the image's name stood for; empty until that is known"},
    "size_bytes": {**_COUNT, "description": "of all blobs and manifests, for one node"},
    "created": {"type": "string", "format": "date-time"},
    "retried": {**_TIME, "description": "when the next attempt begins, of one that failed"},
    "ended": _TIME,
    "nodes_count": _COUNT,
    "nodes_done": {**_COUNT, "description": "that have all of it"},
}
_NODE: Final[dict[str, Any]] = {
    "node": {"type": "string", "description": "its name in hex"},
    "state": {"type": "string", "enum": ["running", "done", "failed"]},
    "held_bytes": _COUNT,
    "error": _TEXT,
}
_EVENT: Final[dict[str, Any]] = {
    "number": {"type": "integer", "minimum": 1},
    "image": _TEXT,
    "state": {
        "type": "string",
        "enum": [state.value for state in EventState],
        "description": "waiting for a job, working: a job is at it, dead: that has failed. No others are listed",
    },
    "received": {"type": "string", "format": "date-time"},
    "job": {"type": ["integer", "null"], "description": "that is at it, or has failed"},
    "error": _TEXT,
}
_SCAN: Final[dict[str, Any]] = {
    "running": {"type": "boolean"},
    "last": {
        "type": ["object", "null"],
        "properties": {
            "ended": {"type": "string", "format": "date-time"},
            "repositories": {**_COUNT, "description": "that were looked at"},
            "found": {**_COUNT, "description": "tags that had changed without an event"},
            "problems": {"type": "object", "additionalProperties": _TEXT, "description": "by repository"},
        },
        "required": ["ended", "repositories", "found", "problems"],
        "additionalProperties": False,
    },
}
_COUNTS: Final[dict[str, Any]] = {state.value: _COUNT for state in EventState}
_RECEIVED: Final[dict[str, Any]] = {
    "queued": {**_COUNT, "description": "saved: they are not lost any more"},
    "repeated": {**_COUNT, "description": "came before, or say nothing new"},
    "unmatched": {**_COUNT, "description": "pushed tags that no rule means"},
    "unreadable": {**_COUNT, "description": "dropped; the log says why"},
}
_NUMBERS: Final[dict[str, Any]] = {
    "numbers": {
        "type": ["array", "null"],
        "maxItems": 1000,
        "items": {"type": "integer"},
        "description": "of dead events; none: all of them",
    }
}
_JOB_SPEC: Final[dict[str, Any]] = {
    "image": {"type": "string", "maxLength": 512, "examples": ["quay.io/org/app:1.0"]},
    "platforms": {
        "type": "array",
        "maxItems": 16,
        "items": {"type": "string", "maxLength": 64, "examples": ["linux/amd64"]},
        "default": [],
        "description": "none: all that the image is built for",
    },
    "to": {
        "type": ["string", "integer"],
        "default": "all",
        "description": "all, zone=REGION/ZONE/RACK or its first parts, node=NAME or its first 8 digits, or how many",
    },
    "by": {**_TIME, "description": "with its zone; not done by then, it has failed"},
    "after": {**_TIME, "description": "with its zone; it is begun then, and not before"},
    "keep": {
        "type": "boolean",
        "default": False,
        "description": "have nodes not evict it, and later ones have it, until it is cancelled; not for a number",
    },
}


def _object(properties: dict[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    needed = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(about: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": schema}}}


_ERRORS: Final = {
    400: "what was sent makes no sense; the error names the key",
    403: "for operators, or for members and operators",
    404: "there is no such job, or not any more",
    415: "the body is no application/json",
    429: "too many jobs are not over yet, or are kept",
    503: "the supernode cannot write its state",
}


def _change(name: str, summary: str) -> dict[str, Any]:
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Numbers")}}},
            "responses": _answers(200, _answer("how many there were", _ref("Changed")), 400, 415, 503),
        }
    }


def _answers(status: int, answer: dict[str, Any], *errors: int) -> dict[str, Any]:
    content = {"text/plain": {"schema": _TEXT}, "application/json": {"schema": _ref("Error")}}
    refused = {"description": _ERRORS[403], "content": content}
    listed = {str(error): _answer(_ERRORS[error], _ref("Error")) for error in errors}
    return {str(status): answer, "403": refused, **listed}


_NUMBER: Final = {
    "name": "number", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1},
}  # fmt: skip

DOCUMENT: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {
        "title": "Layercast jobs and registry events",
        "version": VERSION,
        "description": "Preheat: have images at nodes before clients ask for them, when an operator asks for it or a "
        "registry tells of a push. Jobs and events outlive restarts.",
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    },
    "servers": [{"url": "/"}],
    "security": [{}, {"operator": []}],
    "paths": {
        "/api/v1/jobs": {
            "get": {
                "operationId": "listJobs",
                "summary": "All jobs that are kept or not over, and the newest others; the newest first, without nodes",
                "responses": _answers(200, _answer("jobs", _object({"jobs": {"type": "array", "items": _ref("Job")}}))),
            },
            "post": {
                "operationId": "submitJob",
                "summary": "Have an image brought to nodes",
                "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("JobSpec")}}},
                "responses": _answers(201, _answer("saved: it is not lost any more", _ref("Job")), 400, 415, 429, 503),
            },
        },
        "/api/v1/jobs/{number}": {
            "parameters": [_NUMBER],
            "get": {
                "operationId": "readJob",
                "summary": "One job with its nodes: 1,000 while it runs; of one that is over those that failed",
                "responses": _answers(200, _answer("the job", _ref("JobWithNodes")), 404),
            },
            "delete": {
                "operationId": "cancelJob",
                "summary": "End a job, and keep it no more. What nodes hold by then stays, until they need room",
                "responses": _answers(200, _answer("as it is now", _ref("Job")), 404, 503),
            },
        },
        "/api/v1/notifications": {
            "post": {
                "operationId": "notify",
                "summary": "A registry tells of pushes: CNCF distribution's notifications, Harbor's webhooks",
                "description": "What makes no sense is answered with 202, too: it would be sent again for ever.",
                "security": [{"sender": []}],
                "parameters": [
                    {
                        "name": "registry",
                        "in": "query",
                        "schema": _TEXT,
                        "description": "what its images are called here, HOST or HOST:PORT",
                    }
                ],
                "requestBody": {
                    "required": True,
                    "content": {media_type: {"schema": {"type": "object"}} for media_type in _NOTIFIED},
                },
                "responses": {
                    "202": _answer("what became of its events", _ref("Received")),
                    "401": {"description": "the secret is another", "content": {"text/plain": {"schema": _TEXT}}},
                    "404": {"description": "nobody may send events", "content": {"text/plain": {"schema": _TEXT}}},
                    "503": _answer("send it again: too many wait, or the state cannot be written", _ref("Error")),
                },
            }
        },
        "/api/v1/events": {
            "get": {
                "operationId": "listEvents",
                "summary": "How many events are not done with, and 200 of each state; the newest dead ones first",
                "responses": _answers(200, _answer("events", _ref("Events"))),
            }
        },
        "/api/v1/events/again": _change("retryEvents", "Have another job made of dead events"),
        "/api/v1/events/drop": _change("dropEvents", "Be done with dead events"),
        "/api/v1/events/scan": {
            "post": {
                "operationId": "scanTags",
                "summary": "Ask registries soon which tags changed without an event",
                "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
                "responses": _answers(202, _answer("the newest scan, as it is now", _ref("Scan")), 415),
            }
        },
        "/api/v1/openapi.json": {
            "get": {
                "operationId": "readDocument",
                "summary": "This document",
                "responses": _answers(200, _answer("OpenAPI 3.1", {"type": "object"})),
            }
        },
    },
    "components": {
        "securitySchemes": {
            "operator": {
                "type": "http",
                "scheme": "bearer",
                "description": "ca/operator.token of the supernode's --data-dir, by TLS; none from its own machine",
            },
            "sender": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "the secret of event_token_file: as it is, as a bearer's, or as any user's password",
            },
        },
        "schemas": {
            "JobSpec": _object(_JOB_SPEC, ["image"]),
            "Job": _object(_JOB),
            "JobWithNodes": _object({**_JOB, "nodes": {"type": "array", "items": _ref("Node")}}),
            "Node": _object(_NODE),
            "Event": _object(_EVENT),
            "Events": _object({**_COUNTS, "events": {"type": "array", "items": _ref("Event")}, "scan": _ref("Scan")}),
            "Scan": _object(_SCAN),
            "Received": _object(_RECEIVED),
            "Numbers": _object(_NUMBERS, []),
            "Changed": _object({"changed": _COUNT}),
            "Error": _object({"error": _TEXT}),
        },
    },
}


async def openapi(_: ApiParts, __: web.Request) -> web.Response:
    """The same for everybody who may ask."""
    return web.json_response(DOCUMENT)
