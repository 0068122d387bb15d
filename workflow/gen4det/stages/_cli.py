"""What the command lines of all stages share: settings, logging, errors in one line, signals."""

import argparse
import errno
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from gen4det.core.errors import BusyError, InputError
from gen4det.core.exit_status import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_TERMINATED
from gen4det.core.refusals import refused_before, remember_refusal
from gen4det.core.settings import Settings, parse_settings

S = TypeVar("S", bound=Settings)

MENDABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS})
"""Failures of writing that are no defect of the program: full or read-only disks, quotas, permissions."""


def stage_parser(description: str) -> argparse.ArgumentParser:
    """Parser with `--settings`; `args.settings` is a dictionary with the key "settings".

    `description` is the module's docstring; its first paragraph opens `--help`.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--settings",
        required=True,
        type=_settings_argument,
        metavar="JSON|FILE",
        help='{"settings": {...}} as JSON text, or the path of a file that holds it',
    )
    return parser


def stage_settings(args: argparse.Namespace, model: type[S]) -> S:
    """The stage's typed settings.

    Raises:
        InputError: one line for the first bad setting.
    """
    return parse_settings(model, args.settings["settings"], source="--settings")


def _settings_argument(text: str) -> dict:
    """Parse the argument; a bare settings object is wrapped, so that the stage is pleasant to use by hand."""
    is_json = text.lstrip().startswith("{")
    source = "--settings" if is_json else f"{text:.200}"
    try:
        values = json.loads(text if is_json else Path(text).read_text())
    except OSError as error:
        raise InputError(f"{source}: {error.strerror}; expected JSON text or a file of settings") from error
    except ValueError as error:
        raise InputError(f"{source}: not valid: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{source}: expected an object of settings")
    values.pop(
        "made_from", None
    )  # for Snakemake (orchestration.lineage); a stage looks at the inputs themselves
    if "settings" not in values:
        values = {"settings": values}
    if not isinstance(values["settings"], dict):
        raise InputError(f"{source}: settings: expected an object")
    return values


def run(main: Callable[[], None]) -> NoReturn:
    """Run a stage and leave the process.

    What the user can mend is one line on stderr and exit status 2: an InputError, a full disk, a missing
    permission. What was refused once is refused at once when a scheduler tries the job again. SIGTERM raises
    SystemExit(143) in the main thread, so that files in progress are removed; a stage that has something to
    save installs its own handler. Other exceptions are defects and keep their traceback.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.captureWarnings(True)
    signal.signal(signal.SIGTERM, _terminate)
    if said := refused_before():
        _fail(f"{said} (as in the attempt before)")
    try:
        main()
    except BusyError as error:
        _fail(str(error))
    except InputError as error:
        remember_refusal(str(error))
        _fail(str(error))
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        _fail(f"{error.filename or 'writing'}: {os.strerror(error.errno)}")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _terminate(signum: int, frame: object) -> NoReturn:
    raise SystemExit(EXIT_TERMINATED)


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.exit(EXIT_INPUT)
