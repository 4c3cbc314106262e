"""Completion in real shells: bash with the words as it parts them, zsh, where it is installed, with the keys themselves."""

import os
import pty
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pipelines import config
from pipelines.commands import completion
from pipelines.usage import UsageError


def offered(*words: str) -> list[str]:
    """What bash offers when the key is pressed behind these words."""
    listed = " ".join(map(shlex.quote, words))
    program = (
        f"{completion.script('bash')}\nCOMP_WORDS=({listed}); COMP_CWORD={len(words) - 1}\n"
        '_trellis\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", program], check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_verbs_are_offered_first() -> None:
    assert offered("trellis", "comp") == ["compare", "completion"]


@pytest.mark.parametrize("group", config.GROUPS)
def test_every_name_of_a_group_is_offered(group: str) -> None:
    assert sorted(offered("trellis", "show", group, "=")) == sorted(config.options(group))


def test_the_beginning_of_a_name_is_heeded_in_the_words_of_bash_and_of_zsh() -> None:
    assert offered("trellis", "train", "runtime", "=", "multi_w") == ["multi_worker"]
    assert offered("trellis", "train", "runtime=multi_w") == ["runtime=multi_worker"]


def test_settings_are_offered_with_their_sign() -> None:
    assert offered("trellis", "train", "dataset.ima") == [
        "dataset.images=",
        "dataset.image_suffix=",
    ]
    assert offered("trellis", "sweep", "sweep.tri") == ["sweep.trials="]
    assert "trainer." in offered("trellis", "train", "tr")
    assert offered("trellis", "train", "determinism", "=", "f") == ["false"]


def test_every_setting_of_ours_is_offered() -> None:
    keys = {key.rstrip("=.") for key in offered("trellis", "train", "")}
    assert set(config.Config.__dataclass_fields__) <= keys


def test_runs_are_completed_as_paths(tmp_path) -> None:
    (tmp_path / "run1").mkdir()
    assert offered("trellis", "compare", "run", "=", f"{tmp_path}/r") == [f"{tmp_path}/run1"]


def typed_in_zsh(keys: str, folder: Path) -> str:
    """What stands in the line after these keys, the last of which is the one that completes."""
    (folder / ".zshrc").write_text(f"PS1='ready '\n{completion.script('zsh')}")
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "ZDOTDIR": str(folder), "TERM": "dumb"})
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, keys.encode() + b"\tX")
    until = time.monotonic() + 120
    while b"X" not in shown and time.monotonic() < until:
        shown += os.read(terminal, 1000)
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.decode().rpartition("trellis")[2].partition("X")[0]


@pytest.mark.skipif(not shutil.which("zsh"), reason="no zsh here")
def test_zsh_completes_settings_names_and_paths(tmp_path, monkeypatch) -> None:
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    assert typed_in_zsh("trellis train verif", tmp_path) == " train verify="
    name = typed_in_zsh("trellis show runtime=multi_w", tmp_path)
    assert name.startswith(" show runtime=multi_worker ")
    path = typed_in_zsh("trellis data dataset.root=pi", tmp_path)
    assert path.startswith(" data dataset.root=pictures/")


def test_other_shells_are_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="bash"):
        completion.main(["fish"])
    assert completion.main(["zsh"]) == 0
    assert "compdef _trellis trellis" in capsys.readouterr().out
