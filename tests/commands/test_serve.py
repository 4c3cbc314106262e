"""What `make serve` tells a user to type."""

import base64
import json
import subprocess

from pipelines.commands import serve


def test_the_printed_request_carries_a_picture_longer_than_an_argument_may_be(tmp_path):
    content = bytes(range(256)) * 2_000
    (tmp_path / "picture.jpg").write_bytes(content)
    sent = subprocess.run(
        ["sh", "-c", serve.BODY], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (record,) = json.loads(sent.stdout)["dataframe_records"]
    assert base64.b64decode(record["image"]) == content
