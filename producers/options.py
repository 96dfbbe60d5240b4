"""What a caller asks for with an image, read from forms, queries and JSON and believed of none of them."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlsplit

from schemas.problems import ProblemError
from schemas.records import DetectParameters, Lane

_MAX_KEY, _MAX_MODEL, _MAX_URI = 256, 200, 2048
_MAX_ATTRIBUTES, _MAX_NAME, _MAX_VALUE = 32, 128, 1024
_MAX_CLASSES, _MAX_CLASS, _MAX_DETECTIONS = 1000, 1_000_000, 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARAMETERS = frozenset({"confidence", "iou", "max_detections", "classes"})
_NAMES = frozenset({"key", "model", "lane", "attributes", "callback"})
# Neither a column of a database nor a header nor a log line takes these; half of a surrogate pair is not even text.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked for with an image or with all of a form. `callback`: whom to tell, an https URL."""

    key: str = ""
    model: str | None = None
    lane: Lane = Lane.ONLINE
    parameters: DetectParameters = field(default_factory=DetectParameters)
    attributes: Mapping[str, str] = field(default_factory=dict)
    callback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """An image that a caller names instead of sending it."""

    uri: str
    sha256: str | None = None
    options: Options = field(default_factory=Options)


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """The JSON body of a submission. `batch`: it was asked for as one, even if it holds a single image."""

    images: Sequence[Reference]
    batch: bool
    callback: str | None = None


class OptionError(ValueError):
    """What is wrong with an option, as a sentence for the caller."""


def read_texts(given: Sequence[tuple[str, str]]) -> Options:
    """Options of a form or a query: names once each, values as text. Raises OptionError."""
    if not given:
        return _NONE
    values: dict[str, Any] = {}
    for name, text in given:
        if name in values:
            raise OptionError(f"{_shown(name)} stands there twice")
        values[name] = _from_text(name, text)
    _refuse_unknown(values, _NAMES | _PARAMETERS)
    flat = {name: values.pop(name) for name in _PARAMETERS & values.keys()}
    return _options(values | ({"parameters": flat} if flat else {}))


def read_json(text: bytes, max_images: int) -> References:
    """The JSON body: one reference, or `{"images": [...], "callback"}`.

    Raises ProblemError: 400 `invalid_request`, 422 `image_empty` for no images, 413 `too_many_images`; 422 `callback_forbidden`.
    """
    try:
        body = parse_object(text)
        return _several(body, max_images) if "images" in body else _one(body)
    except OptionError as error:
        raise ProblemError(400, "invalid_request", str(error)) from error


def parse_object(text: bytes) -> dict[str, Any]:
    """A JSON object, strictly: UTF-8, finite numbers. Raises OptionError."""
    try:
        value = json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise OptionError("the body is not JSON") from error
    if not isinstance(value, dict):
        raise OptionError("the body is a JSON object")
    return value


def check_callback(value: object) -> str:
    """A callback's URL: http or https, a host, no credentials. `Submission` says which scheme is allowed, the call where it may lead.

    Raises ProblemError: 422 `callback_forbidden`; OptionError for what is no text.
    """
    url = _text("callback", value, _MAX_URI)
    try:
        parts = urlsplit(url)
        good = (
            parts.scheme in {"http", "https"}
            and parts.hostname
            and parts.port != 0
            and not (parts.username or parts.password)
        )
    except ValueError:
        good = False
    if not good or not url.isascii() or " " in url:
        raise ProblemError(
            422, "callback_forbidden", "a callback is an https URL of a public host, without credentials"
        )
    return url


def check_sha256(value: object) -> str | None:
    """A lower-case hex digest, or None. Raises OptionError."""
    if value is None:
        return None
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise OptionError("sha256 is 64 lower-case hexadecimal digits")
    return value


def _from_text(name: str, text: str) -> object:
    """A value of a form or query as JSON would have it."""
    try:
        if name in {"confidence", "iou"}:
            return float(text)
        if name == "max_detections":
            return int(text)
        if name == "classes":
            return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise OptionError(f"{name} is no number") from error
    return parse_object(text.encode(errors="surrogatepass")) if name == "attributes" else text


def _one(body: Mapping[str, Any]) -> References:
    one = _reference(body)
    return References(images=[one], batch=False, callback=one.options.callback)


def _several(body: Mapping[str, Any], max_images: int) -> References:
    _refuse_unknown(body, {"images", "callback"})
    several, callback = body["images"], body.get("callback")
    if not isinstance(several, list):
        raise OptionError("images is a list")
    if not several:
        raise ProblemError(422, "image_empty", "a request of no images")
    if len(several) > max_images:
        raise ProblemError(413, "too_many_images", f"one request brings at most {max_images} images")
    images = [_reference(item) for item in several]
    if any(item.options.callback for item in images):
        raise OptionError("the callback of a batch stands beside its images")
    return References(images=images, batch=True, callback=None if callback is None else check_callback(callback))


def _reference(item: object) -> Reference:
    if not isinstance(item, dict):
        raise OptionError("an image is an object with a uri")
    _refuse_unknown(item, _NAMES | {"uri", "sha256", "parameters"})
    return Reference(
        uri=_text("uri", item.get("uri", ""), _MAX_URI, least=1),
        sha256=check_sha256(item.get("sha256")),
        options=_options(item),
    )


def _options(values: Mapping[str, Any]) -> Options:
    model, lane, callback = values.get("model"), values.get("lane", "online"), values.get("callback")
    if lane not in {"online", "bulk"}:
        raise OptionError("lane is online or bulk")
    return Options(
        key=_text("key", values.get("key", ""), _MAX_KEY),
        model=None if model is None else _text("model", model, _MAX_MODEL, least=1),
        lane=Lane(lane),
        parameters=_parameters(values.get("parameters", {})),
        attributes=_attributes(values.get("attributes", {})),
        callback=None if callback is None else check_callback(callback),
    )


def _parameters(values: object) -> DetectParameters:
    if not isinstance(values, dict):
        raise OptionError("parameters is an object")
    _refuse_unknown(values, _PARAMETERS)
    most, classes = values.get("max_detections"), values.get("classes")
    if most is not None:
        _whole("max_detections", most, 1, _MAX_DETECTIONS)
    if classes is not None:
        if not (isinstance(classes, list) and 1 <= len(classes) <= _MAX_CLASSES):
            raise OptionError(f"classes is a list of 1 to {_MAX_CLASSES} class ids")
        classes = tuple(_whole("a class id", number, 0, _MAX_CLASS) for number in classes)
    return DetectParameters(
        confidence=_share("confidence", values.get("confidence")),
        iou=_share("iou", values.get("iou")),
        max_detections=most,
        classes=classes,
    )


def _attributes(values: object) -> dict[str, str]:
    if not isinstance(values, dict) or len(values) > _MAX_ATTRIBUTES:
        raise OptionError(f"attributes is an object of at most {_MAX_ATTRIBUTES} members")
    return {
        _text("an attribute's name", name, _MAX_NAME, least=1): _text("an attribute's value", value, _MAX_VALUE)
        for name, value in values.items()
    }


def _text(what: str, value: object, most: int, least: int = 0) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise OptionError(f"{what} is text of {least} to {most} characters")
    if _UNPRINTABLE.search(value):
        raise OptionError(f"{what} holds a control character, or half a character")
    return value


def _share(name: str, value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        raise OptionError(f"{name} is a number in 0..1")
    return float(value)


def _whole(name: str, value: object, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise OptionError(f"{name} is a whole number in {least}..{most}")
    return value


def _refuse_unknown(values: Mapping[str, object], known: "frozenset[str] | set[str]") -> None:
    if unknown := values.keys() - known:
        raise OptionError(f"unknown field {_shown(min(unknown))}; known: {', '.join(sorted(known))}")


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError("not a number of JSON")


def _shown(name: str) -> str:
    return ascii(name[:40])


_NONE = Options()
