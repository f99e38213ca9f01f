"""`galip`: the group of commands, and the one place where errors are shown."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

import galip_keras
from galip_cli.group import HelpfulGroup
from galip_keras.downloads.licenses import VARIABLE, LicenseError

COMMANDS = (
    "train",
    "sample",
    "interpolate",
    "mix",
    "invert",
    "evaluate",
    "data",
    "convert",
    "export",
    "serve",
    "push",
    "info",
)


class LazyGroup(HelpfulGroup):
    """Imports the file of a command only when the command is needed.

    Attributes:
        command: the `click.Command` that was chosen last, or None.
    """

    command: click.Command | None = None

    def list_commands(self, ctx: click.Context | None) -> list[str]:
        return list(COMMANDS)

    def get_command(
        self, ctx: click.Context | None, cmd_name: str
    ) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"galip_cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        # These options may also follow the command.
        for part in _with_subcommands(command):
            part.params += [x for x in _EVERYWHERE if x not in part.params]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = super().resolve_command(ctx, args)
        self.command = found[1]
        return found


def _with_subcommands(command: click.Command) -> list[click.Command]:
    return [command, *getattr(command, "commands", {}).values()]


def _be_verbose(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        # `quiet_imports` reads it.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"


def _accept(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value:
        os.environ[VARIABLE] = "1"


_debug = click.Option(
    ["--debug"],
    is_flag=True,
    expose_value=False,
    help="Show the traceback of an error.",
)
_verbose = click.Option(
    ["--verbose"],
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_be_verbose,
    help="Show the messages of libraries as they load.",
)
_yes = click.Option(
    ["--yes"],
    is_flag=True,
    expose_value=False,
    callback=_accept,
    help="Accept the licences of what is fetched, which are shown.",
)
_EVERYWHERE: list[click.Parameter] = [_debug, _verbose, _yes]


@click.group(
    cls=LazyGroup,
    params=[*_EVERYWHERE],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(galip_keras.__version__, prog_name="galip")
@click.pass_context
def galip(ctx: click.Context) -> None:
    """Text-to-image GANs on a frozen CLIP.

    Generate images from prompts, and train a model on your own captioned images.

    \b
    First:
      galip sample "a red bird"     sixteen images by the bundled model
      galip COMMAND --help          options of a command, with two examples
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args: Sequence[str] | None = None) -> None:
    """Run `galip`, with errors as one line on standard error.

    Args:
        args: list of strings. Defaults to the arguments of the process.
    """
    args = list(sys.argv[1:] if args is None else args)
    galip.command = None
    try:
        sys.exit(galip.main(args, prog_name="galip", standalone_mode=False) or 0)
    except Exception as error:
        if "--debug" in args:
            raise
        message, code = _explain(error)
        click.echo(message, err=True)
        sys.exit(code)


def _explain(error: Exception) -> tuple[str, int]:
    """The line to show for an exception, and the exit code."""
    if isinstance(error, click.Abort):
        return "Interrupted.", 130
    if isinstance(error, click.NoSuchOption) and _may_be_a_value(error):
        message = _one_line(error.format_message())
        hint = (
            'Put -- before text that begins with a dash: galip sample -- "-5 degrees".'
        )
        return f"Error: {message} {hint}", error.exit_code
    if isinstance(error, click.ClickException):
        return f"Error: {_one_line(error.format_message())}", error.exit_code
    if isinstance(error, LicenseError):
        text = str(error).replace(f"set {VARIABLE}", f"add --yes or set {VARIABLE}")
        return f"Error: {_one_line(text)}.", 1
    if isinstance(error, OSError) and error.filename:
        return f"Error: {error.filename}: {error.strerror}", 1
    if isinstance(error, ModuleNotFoundError) and (remedy := _remedy(error)):
        return f"Error: {remedy}.", 1
    text = _one_line(str(error))
    if galip.command is not None:
        text = name_options(text, galip.command)
    if not isinstance(error, (ValueError, OSError)) or not text:
        text = f"{type(error).__name__}: {text} (--debug shows where it comes from)"
    return f"Error: {text}", 1


def _remedy(error: ModuleNotFoundError) -> str:
    """What to do about a missing library, empty if it is none of ours."""
    name = (error.name or "").partition(".")[0]
    if name in ("jax", "torch"):
        return f"this backend needs {name}: pip install 'galip-keras[{name}]'"
    if not name.startswith("tensorflow"):
        return ""
    if isinstance(error.__cause__, ImportError):
        # The package has explained it.
        return str(error)
    if "keras" not in sys.modules:
        # Keras could not be imported: it is the backend that is missing.
        return (
            "this backend needs tensorflow: pip install tensorflow, or set "
            "KERAS_BACKEND to jax or torch"
        )
    from galip_keras.console import needs_package

    what = f"`galip {galip.command.name}`" if galip.command else "this"
    return needs_package(what, name)


def _may_be_a_value(error: click.NoSuchOption) -> bool:
    """Whether a wrong option could be an argument, such as "-5 degrees"."""
    command = error.ctx.command if error.ctx else None
    takes_text = any(
        isinstance(x, click.Argument) for x in getattr(command, "params", [])
    )
    name = error.option_name
    return takes_text and (not name.startswith("--") or " " in name)


def name_options(text: str, command: click.Command) -> str:
    """Replace the names of arguments in a message by a command's options.

    The package names an argument in backticks, as in "choose another `data_dir`". On
    the command line this is `--data-dir`.

    Args:
        text: string. A message of the package.
        command: a `click.Command`. Names that are not its options stay as they are.

    Returns:
        A string.
    """
    options = {
        param.name: max(param.opts, key=len)
        for part in _with_subcommands(command)
        for param in part.params
        if isinstance(param, click.Option)
    }
    return re.sub(r"`(\w+)`", lambda match: options.get(match[1], match[0]), text)


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    main()
