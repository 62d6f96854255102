"""Asks a script's own argparse parser about flags and values, without running the script.

python pathlab/sweep/parser.py REQUEST ANSWER    (in a process that is forked for it)

The script is started as usual, and stopped at the moment in which it parses its command line. So
every script that uses argparse can be asked, whatever it looks like.
"""

import argparse
import json
import os
import runpy
import sys
from pathlib import Path

from pathlab.errors import UserError, suggestion
from pathlab.files import write_json
from pathlab.sweep.config import Part
from pathlab.sweep.scripts import Script, run_script


def check_part(part: Part, folder: Path, needed: list[str], threads: int) -> None:
    """Fill in part.flags and part.resumable, or raise UserError for what the parser refuses.

    folder: for temporary files. needed: flags that the dispatcher will use itself. threads: of the
    trials, which the same server runs later.

    part.flags has for each parameter {"flag", "off", "is_switch"}: the flag as the parser spells
    it, and for switches the flag for false, or None.
    """
    if "argparse" not in part.script.read_text(errors="replace"):
        part.flags = {n: _plain(n) for n in {**part.params, **part.fixed, **dict.fromkeys(needed)}}
        return
    searched = {n: v if isinstance(v, list) else _ends(v) for n, v in part.params.items()}
    request = {
        "script": str(part.script),
        "values": searched | {name: [value] for name, value in part.fixed.items()},
        "needed": needed,
    }
    stem = folder / f".{part.name}"
    question, answered = stem.with_suffix(".ask.tmp"), stem.with_suffix(".answer.tmp")
    log, lock = stem.with_suffix(".log.tmp"), stem.with_suffix(".lock.tmp")
    try:
        write_json(question, request)
        arguments = [str(question), str(answered)]
        run_script(Script(Path(__file__).resolve(), arguments, log, lock, threads=threads))
        if not answered.exists():
            told = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise UserError(
                f"{part.script.name} ended before it parsed its command line:\n" + "\n".join(told)
            )
        answer = json.loads(answered.read_text())
    finally:
        for file in (question, answered, log, lock):
            file.unlink(missing_ok=True)
    if "problem" in answer:
        raise UserError(f"{part.script.name} does not accept this sweep: {answer['problem']}")
    part.flags, part.resumable = answer["flags"], answer["resumable"]


def command_line(part: Part, params: dict, seed: int | None) -> list[str]:
    """The arguments for one trial, without --output-dir."""
    values = {**part.fixed, **params} | ({} if seed is None else {"seed": seed})
    return [word for name, value in values.items() for word in _words(part.flags[name], value)]


def _words(flag: dict, value) -> list[str]:
    if value is None or (flag["is_switch"] and not value):
        return [flag["off"]] if value is False and flag["off"] else []
    return [flag["flag"]] if flag["is_switch"] else [f"{flag['flag']}={value}"]


def _plain(name: str) -> dict:
    return {"flag": f"--{name.replace('_', '-')}", "off": None, "is_switch": False}


def _ends(span: dict) -> list:
    return [span["low"], span["high"]]


# ---- in the forked process ----


class _Refused(Exception):
    pass


def main() -> None:
    request, answered = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])

    original = argparse.ArgumentParser.parse_known_args

    def ask(parser: argparse.ArgumentParser, *_, **__):
        argparse.ArgumentParser.parse_known_args = original
        try:
            answer = _ask(parser, request)
        except _Refused as refused:
            answer = {"problem": str(refused)}
        write_json(answered, answer)
        os._exit(0)

    argparse.ArgumentParser.parse_known_args = ask
    sys.argv = [request["script"]]
    sys.path[0] = str(Path(request["script"]).parent)
    runpy.run_path(request["script"], run_name="__main__")


def _ask(parser: argparse.ArgumentParser, request: dict) -> dict:
    options = parser._option_string_actions
    for name in request["needed"]:
        if _spelled(options, name) is None:
            flag = _plain(name)["flag"]
            raise _Refused(f"it has no flag {flag}, which the dispatcher has to set.")
    flags, owners = {}, {}
    for name in [*request["values"], *request["needed"]]:
        flag = _spelled(options, name)
        if flag is None:
            known = sorted(o.lstrip("-") for o in options if o.startswith("--"))
            hint = suggestion(name, [k.replace("-", "_") for k in known])
            raise _Refused(f"it has no flag for the parameter {name!r}. {hint}")
        action = options[flag]
        if action.dest in owners and owners[action.dest] != name:
            raise _Refused(f"{owners[action.dest]!r} and {name!r} are the same flag, {flag}.")
        owners[action.dest] = name
        off = next((o for o in action.option_strings if o.startswith("--no-")), None)
        is_switch = action.nargs == 0
        flags[name] = {"flag": flag, "off": off if off != flag else None, "is_switch": is_switch}
        for value in request["values"].get(name, []):
            if is_switch and not isinstance(value, (bool, type(None))):
                raise _Refused(f"{flag} is a switch: its values are true and false, not {value!r}.")
            if not is_switch and isinstance(value, bool):
                raise _Refused(f"{flag} takes a value, not true or false.")
    base = {name: values[0] for name, values in request["values"].items()}
    for name, values in request["values"].items():
        for value in values:
            _parse(parser, flags, {**base, name: value})
    return {"flags": flags, "resumable": "--resume" in options}


def _parse(parser: argparse.ArgumentParser, flags: dict, values: dict) -> None:
    words = [word for name, value in values.items() for word in _words(flags[name], value)]

    def refuse(message: str):
        raise _Refused(f"{message} (it was tried with: {' '.join(words)})")

    parser.error = refuse
    _, unknown = parser.parse_known_args([*words, "--output-dir=somewhere"])
    if unknown:
        refuse(f"unrecognized arguments: {' '.join(unknown)}")


def _spelled(options: dict, name: str) -> str | None:
    for spelling in (name.replace("_", "-"), name):
        if f"--{spelling}" in options:
            return f"--{spelling}"
    return None


if __name__ == "__main__":
    main()
