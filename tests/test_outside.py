"""Text from outside: what a terminal would obey is spelled, what is secret is hidden."""

import pytest

from pipelines.outside import printable, redacted


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
        ("mysql+pymysql://u:s3cret@h/db and again http://v:s3cret@g", "mysql+pymysql://u:***@h/db and again http://v:***@g"),
        ("https://a.blob/x?sv=2020&sig=s3cret&x=1", "https://a.blob/x?sv=***&sig=***&x=1"),
        ("Authorization: Bearer s3cret.s3cret", "Authorization: Bearer ***"),
        ("https://h/?X-Amz-Signature=s3cret&X-Amz-Security-Token=s3cret", "https://h/?X-Amz-Signature=***&X-Amz-Security-Token=***"),
        ("host=db user=me password=s3cret dbname=x", "host=db user=me password=*** dbname=x"),
        ("{'aws_secret_access_key': 's3cret'}", "{'aws_secret_access_key': '***'}"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("sqlite:////runs/mlflow.db", "sqlite:////runs/mlflow.db"),
        ("gs://bucket/photos@2x/a.jpg?x=1", "gs://bucket/photos@2x/a.jpg?x=1"),
        ("AP@[.5:.95]: 0.5", "AP@[.5:.95]: 0.5"),
        ("http://alice:p@ss:w@host/x", "http://alice:***@host/x"),
    ],
)
def test_passwords_and_tokens_are_hidden_in_any_text(text, shown):
    assert redacted(text) == shown
    assert "s3cret" not in redacted(text)
