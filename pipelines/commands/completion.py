"""Prints what lets a shell complete commands.    eval "$(trellis completion bash)"    make completion ARGS=zsh

It completes verbs, settings, and the names that experiment=, dataset=, runtime=, runner= and sweep= accept. Names are
read from conf/ when the key is pressed, by the shell alone, so that new files are offered and nothing is imported.
"""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from pipelines import config
from pipelines.usage import UsageError, nearest

OWN = {"dataset": config.Dataset, "threads": config.Threads, "sweep": config.Sweep}
# What both shells need.
NAMES = """\
_trellis_names() {
    local folder
    for folder in @FOLDER@ "${TRELLIS_CONF:-/dev/null}"; do
        (cd "$folder/$1" 2>/dev/null && find . -name '*.yaml' | sed -e 's|^[.]/||' -e 's|[.]yaml$||')
    done
}
"""
# Bash parts words at `=`, unless COMP_WORDBREAKS says otherwise: `front` is then what belongs to the word.
BASH = """\
_trellis() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} key= front= choices=
    if [[ $word == "=" ]]; then key=$before word=
    elif [[ $before == "=" ]]; then key=${COMP_WORDS[COMP_CWORD-2]}
    elif [[ $word == *=* ]]; then key=${word%%=*} front=${word%%=*}= word=${word#*=}
    fi
    COMPREPLY=()
    if [[ $COMP_CWORD -eq 1 ]]; then
        choices="@VERBS@"
    elif [[ -z $key ]]; then
        choices="@KEYS@"
        compopt -o nospace 2>/dev/null
    else
        case $key in
            @GROUPS@) choices=$(_trellis_names "$key") ;;
            @SWITCHES@) choices="true false" ;;
            dataset.validate) choices="none sample full" ;;
            @PATHS@)
                compopt -o filenames 2>/dev/null
                COMPREPLY=($(compgen -f -P "$front" -- "$word"))
                return ;;
        esac
    fi
    COMPREPLY=($(compgen -P "$front" -W "$choices" -- "$word"))
}
complete -F _trellis trellis
"""
# The emulation of bash's completion that zsh brings adds a space behind a setting and finds no path behind `=`.
ZSH = """\
(( $+functions[compdef] )) || { autoload -U compinit && compinit -u }
_trellis() {
    local key=${PREFIX%%=*}
    if (( CURRENT == 2 )); then
        compadd -- @VERBS@
    elif [[ $PREFIX != *=* ]]; then
        compadd -S "" -- @KEYS@
    else
        compset -P "*="
        case $key in
            @GROUPS@) compadd -- ${(f)"$(_trellis_names $key)"} ;;
            @SWITCHES@) compadd -- true false ;;
            dataset.validate) compadd -- none sample full ;;
            @PATHS@) _files ;;
        esac
    fi
}
compdef _trellis trellis
"""
SCRIPTS = {"bash": NAMES + BASH, "zsh": NAMES + ZSH}


def main(overrides: Sequence[str]) -> int:
    """Takes the name of a shell."""
    asked = overrides[0] if len(overrides) == 1 else ""
    if asked not in SCRIPTS:
        hint = nearest(asked, list(SCRIPTS))
        raise UsageError(
            f'completion: for which shell?{hint}\nin ~/.bashrc: eval "$(trellis completion bash)"'
        )
    print(script(asked), end="")
    return 0


def script(shell: str) -> str:
    """What defines the function that a shell calls, for this installation."""
    verbs = sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))
    values = {
        "FOLDER": shlex.quote(str(config.FOLDER)),
        "VERBS": " ".join(verbs),
        "KEYS": " ".join(_keys()),
        "GROUPS": "|".join(config.GROUPS),
        "SWITCHES": "|".join(_switches()),
        "PATHS": "|".join(_paths()),
    }
    text = SCRIPTS[shell]
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def _keys() -> Iterator[str]:
    """Every setting of ours with the sign that follows it, and how Model Garden's begin."""
    groups = [f"{group}=" for group in config.GROUPS]
    yield from groups
    for setting in fields(config.Config):
        if setting.name in (*config.GARDEN_NODES, *OWN):
            yield f"{setting.name}."
        elif f"{setting.name}=" not in groups:
            yield f"{setting.name}="
        for inner in fields(OWN[setting.name]) if setting.name in OWN else ():
            yield f"{setting.name}.{inner.name}="


def _switches() -> Iterator[str]:
    """Settings that are on or off."""
    for setting in fields(config.Config):
        if setting.type is bool:
            yield setting.name
    for setting in fields(config.Dataset):
        if setting.type is bool:
            yield f"dataset.{setting.name}"


def _paths() -> Iterator[str]:
    """Settings that hold a path, or a run that may be a directory."""
    yield from (*config.paths(config.Config), "run", "against")
    for name in config.paths(config.Dataset):
        yield f"dataset.{name}"
