"""Problems: the document that a caller gets."""

from schemas.errors import SightstreamError
from schemas.problems import ProblemError, not_found


def test_a_document_has_the_members_of_rfc_9457_and_the_stable_code() -> None:
    error = ProblemError(429, "rate_limited", "too many requests", retry_after_s=3, extra={"limit": 10})
    assert error.document("r1") == {
        "type": "urn:sightstream:problem:rate_limited",
        "title": "Too Many Requests",
        "status": 429,
        "code": "rate_limited",
        "detail": "too many requests",
        "request_id": "r1",
        "limit": 10,
    }


def test_extra_members_never_replace_the_standard_ones() -> None:
    assert ProblemError(400, "bad", "no", extra={"status": 200, "code": "good"}).document()["status"] == 400


def test_it_is_one_of_the_errors_raised_on_purpose_and_says_its_detail() -> None:
    error = not_found("image")
    assert isinstance(error, SightstreamError)
    assert str(error) == "there is no such image"
    assert (error.status, error.code) == (404, "not_found")
    assert "request_id" not in error.document()
