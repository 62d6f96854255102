"""Asks a script's own argparse parser about flags and values, without running the script.

python pathlab/sweep/parser.py REQUEST REPLY    (in a process of its own)

The script is started as usual, and stopped at the moment in which it parses its command line. So
every script that uses argparse can be asked, whatever it looks like.
"""

import argparse
import json
import os
import runpy
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from pathlab.errors import UserError, suggestion
from pathlab.files import write_json
from pathlab.settings import flag as spell
from pathlab.sweep.config import Part, flag_words
from pathlab.sweep.scripts import Script, run_script


def check_part(part: Part, folder: Path, needed: list[str], threads: int) -> None:
    """Fill in part.flags and part.resumable, or raise UserError for what the parser refuses.

    folder: for temporary files. needed: flags that the dispatcher will use itself. threads: of the
    trials, which the same fork server runs later.

    part.flags has for each parameter {"flag", "off"}: the flag as the parser spells it, and for
    switches the flag for false, or None. It stays empty for a script that does not use argparse.
    """
    if "argparse" not in part.script.read_text(errors="replace"):
        return
    searched = {
        name: [values["low"], values["high"]] if isinstance(values, dict) else values
        for name, values in part.params.items()
    }
    request = {
        "script": str(part.script),
        "values": searched | {name: [value] for name, value in part.fixed.items()},
        "needed": needed,
    }
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as name:
        question, replied, log, lock = (Path(name) / n for n in ("ask", "reply", "log", "lock"))
        write_json(question, request)
        arguments = [str(question), str(replied)]
        run_script(Script(Path(__file__).resolve(), arguments, log, lock, threads=threads))
        if not replied.exists():
            lines = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise UserError(
                f"{part.script.name} ended before it parsed its command line:\n" + "\n".join(lines)
            )
        reply = json.loads(replied.read_text())
    if "problem" in reply:
        raise UserError(f"{part.script.name} does not accept this sweep: {reply['problem']}")
    part.flags, part.resumable = reply["flags"], reply["resumable"]


# ---- in the script's process ----


class _RefusedError(Exception):
    pass


def main() -> None:
    """Start the script of REQUEST up to its parser, and write what that says to REPLY."""
    request, replied = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    original = argparse.ArgumentParser.parse_known_args

    def intercept(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> NoReturn:
        argparse.ArgumentParser.parse_known_args = original  # type: ignore[method-assign]
        try:
            reply = _inspect(parser, request)
        except _RefusedError as refused:
            reply = {"problem": str(refused)}
        write_json(replied, reply)
        os._exit(0)

    argparse.ArgumentParser.parse_known_args = intercept  # type: ignore[assignment]
    sys.argv = [request["script"]]
    sys.path[0] = str(Path(request["script"]).parent)
    runpy.run_path(request["script"], run_name="__main__")


def _inspect(parser: argparse.ArgumentParser, request: dict[str, Any]) -> dict[str, Any]:
    """{"flags", "resumable"}. Raises _RefusedError for what the parser refuses."""
    options = parser._option_string_actions
    flags: dict[str, dict] = {}
    owners: dict[str, str] = {}
    for name in [*request["needed"], *request["values"]]:
        flag = next((f for n in (name.replace("_", "-"), name) if (f := f"--{n}") in options), None)
        if flag is None and name in request["needed"]:
            raise _RefusedError(f"it has no flag {spell(name)}, which the dispatcher has to set.")
        if flag is None:
            known = sorted(o.lstrip("-").replace("-", "_") for o in options if o.startswith("--"))
            hint = suggestion(name, known)
            raise _RefusedError(f"it has no flag for the parameter {name!r}. {hint}")
        action = options[flag]
        if owners.setdefault(action.dest, name) != name:
            raise _RefusedError(f"{owners[action.dest]!r} and {name!r} are the same flag, {flag}.")
        off = next((o for o in action.option_strings if o.startswith("--no-")), None)
        flags[name] = {"flag": flag, "off": off if off != flag else None}
        for value in request["values"].get(name, []):
            is_switch = isinstance(value, bool)
            if action.nargs == 0 and not is_switch and value is not None:
                raise _RefusedError(
                    f"{flag} is a switch: its values are true and false, not {value!r}."
                )
            if action.nargs != 0 and is_switch:
                raise _RefusedError(f"{flag} takes a value, not true or false.")
    base = {name: values[0] for name, values in request["values"].items()}
    for name, values in request["values"].items():
        for value in values:
            _parse(parser, flags, {**base, name: value})
    return {"flags": flags, "resumable": "--resume" in options}


def _parse(parser: argparse.ArgumentParser, flags: dict[str, dict], values: dict) -> None:
    words = [word for name, value in values.items() for word in flag_words(flags, name, value)]

    def refuse(message: str) -> NoReturn:
        raise _RefusedError(f"{message} (it was tried with: {' '.join(words)})")

    parser.error = refuse  # type: ignore[method-assign]
    _, unknown = parser.parse_known_args([*words, "--output-dir=somewhere"])
    if unknown:
        refuse(f"unrecognized arguments: {' '.join(unknown)}")


if __name__ == "__main__":
    main()
