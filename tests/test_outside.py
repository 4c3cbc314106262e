"""Text from outside: what a terminal would obey is spelled, what is secret is hidden."""

import io
import re
from pathlib import Path

import pytest

import pipelines
from pipelines.outside import (
    Discreet,
    printable,
    quoted,
    reason,
    redacted,
    told,
    without_secrets,
)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("tulip", "tulip"),
        ("two\nlines\tand a tab", "two\\nlines\\tand a tab"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("gnp.\u202eexe", "gnp.\\u202eexe"),
        (b"caf\xe9".decode("utf-8", "surrogateescape"), "caf\\udce9"),
        ("Schäfer 山", "Schäfer 山"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled(text, shown):
    assert printable(text) == shown


def test_between_quotation_marks_it_is_spelled_once():
    assert quoted("two\nlines") == "'two\\nlines'"
    assert quoted("a" * 10_000, 20) == f"'{'a' * 19}…'"


def test_nothing_is_spelled_twice():
    root = Path(pipelines.__file__).parent
    twice = [file for file in root.rglob("*.py") if re.search(r"printable\(.*!r", file.read_text())]
    assert twice == []


def test_a_name_of_ten_thousand_letters_is_cut():
    assert printable("a" * 10_000, 20) == "a" * 19 + "…"
    assert printable("a" * 20, 20) == "a" * 20
    assert len(printable("\x1b" * 10_000, 20)) == 20


@pytest.mark.parametrize(
    "text, shown",
    [
        ("http://alice:s3cret@host:5000/x", "http://alice:***@host:5000/x"),
        ("https://glpat-s3cret@host/x", "https://***@host/x"),
        ("postgresql://h/db?user=me&password=s3cret", "postgresql://h/db?user=me&password=***"),
        (
            "mysql+pymysql://u:s3cret@h/db and again http://v:s3cret@g",
            "mysql+pymysql://u:***@h/db and again http://v:***@g",
        ),
        ("https://a.blob/x?sv=2020&sig=s3cret&x=1", "https://a.blob/x?sv=***&sig=***&x=1"),
        ("Authorization: Bearer s3cret.s3cret", "Authorization: Bearer ***"),
        (
            "https://h/?X-Amz-Signature=s3cret&X-Amz-Security-Token=s3cret",
            "https://h/?X-Amz-Signature=***&X-Amz-Security-Token=***",
        ),
        ("host=db user=me password=s3cret dbname=x", "host=db user=me password=*** dbname=x"),
        ("{'aws_secret_access_key': 's3cret'}", "{'aws_secret_access_key': '***'}"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
        ("gs://bucket/photos@2x/a.jpg?x=1", "gs://bucket/photos@2x/a.jpg?x=1"),
        ("AP@[.5:.95]: 0.5", "AP@[.5:.95]: 0.5"),
        ("http://alice:p@ss:w@host/x", "http://alice:***@host/x"),
        ("http://alice:s3cret/x?y'z@host/x", "http://alice:***@host/x"),
        ("http://:s3cret@host/x", "http://:***@host/x"),
        ("{'a':'http://host:5000','b':'x@y'}", "{'a':'http://host:5000','b':'x@y'}"),
        ("http://127.0.0.1:5000 and mail to x@y", "http://127.0.0.1:5000 and mail to x@y"),
    ],
)
def test_passwords_and_tokens_are_hidden_in_any_text(text, shown):
    assert redacted(text) == shown
    assert "s3cret" not in redacted(text)


def test_a_reason_is_cut_after_its_secrets_are_hidden():
    text = "failed:\n" + "x" * 20 + " http://alice:s3cretpw@host/path"
    assert all("s3" not in reason(ValueError(text), longest) for longest in range(10, 80))
    assert reason(ValueError("a\n  b\x1b[31m")) == "a b\\x1b[31m"


def test_secrets_inside_documents_and_tracebacks_are_hidden():
    assert without_secrets({"a": ["http://u:s3cret@h", 1, None], "A_TOKEN": "x"}) == {
        "a": ["http://u:***@h", 1, None],
        "A_TOKEN": "***",
    }
    try:
        raise ValueError("http://u:s3cret@h")
    except ValueError as error:
        assert told(error).endswith("ValueError: http://u:***@h\n")


def test_a_stream_hides_secrets_also_where_a_line_is_written_in_pieces():
    below = io.StringIO()
    stream = Discreet(below)
    print("told http://alice:", "s3cret@host", sep="", file=stream)
    stream.write("unfinished http://alice:s3cret@host")
    stream.flush()
    assert below.getvalue() == "told http://alice:***@host\nunfinished http://alice:***@host"
