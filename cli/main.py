"""`galip`: the group of commands, and the one place where errors are shown."""

import importlib
import os
import re
import sys

import click

import galip_keras
from galip_cli.group import HelpfulGroup

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
    """Imports the file of a command when it is asked for.

    Attributes:
        command: the `click.Command` that was asked for last, or None.
    """

    command = None

    def list_commands(self, ctx):
        return list(COMMANDS)

    def get_command(self, ctx, name):
        if name not in COMMANDS:
            return None
        command = getattr(importlib.import_module(f"galip_cli.{name}"), name)
        # They may stand behind the command as well.
        for part in _with_subcommands(command):
            part.params += [x for x in _EVERYWHERE if x not in part.params]
        self.command = command
        return command


def _with_subcommands(command):
    return command, *getattr(command, "commands", {}).values()


def _be_verbose(context, parameter, value):
    if value:
        # What `quiet_imports` looks for.
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"


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
    help="Show what libraries write as they start.",
)
_EVERYWHERE = [_debug, _verbose]


@click.group(
    cls=LazyGroup,
    params=[*_EVERYWHERE],
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(galip_keras.__version__, prog_name="galip")
@click.pass_context
def galip(ctx):
    """Text-to-image GANs on a frozen CLIP.

    Make pictures from sentences, and train a model on your own pictures and captions.

    \b
    First:
      galip sample "a red bird"     sixteen pictures, from the model that ships
      galip COMMAND --help          what a command takes, with two examples
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(args=None):
    """Runs `galip`, with errors as one line on standard error.

    Args:
        args: list of strings. Defaults to those of the process.
    """
    args = sys.argv[1:] if args is None else args
    try:
        sys.exit(galip.main(args, prog_name="galip", standalone_mode=False) or 0)
    except Exception as error:
        if "--debug" in args:
            raise
        message, code = _explain(error)
        click.echo(message, err=True)
        sys.exit(code)


def _explain(error):
    """The line to show for an exception, and the exit code."""
    if isinstance(error, click.Abort):
        return "Interrupted.", 130
    if isinstance(error, click.ClickException):
        return f"Error: {_one_line(error.format_message())}", error.exit_code
    if isinstance(error, OSError) and error.filename:
        return f"Error: {error.filename}: {error.strerror}", 1
    if isinstance(error, ModuleNotFoundError) and error.name in ("jax", "torch"):
        extra = f"pip install 'galip-keras[{error.name}]'"
        return f"Error: this backend needs {error.name}: {extra}.", 1
    text = _one_line(_with_options(str(error)))
    if not isinstance(error, (ValueError, OSError)) or not text:
        text = f"{type(error).__name__}: {text} (--debug shows where it comes from)"
    return f"Error: {text}", 1


def _with_options(text):
    """A message in which the package names an argument, with the option for it."""
    if galip.command is None:
        return text
    options = {
        param.name: max(param.opts, key=len)
        for command in _with_subcommands(galip.command)
        for param in command.params
        if isinstance(param, click.Option)
    }
    return re.sub(r"`(\w+)`", lambda m: options.get(m[1], m[0]), text)


def _one_line(text):
    return " ".join(text.split())


if __name__ == "__main__":
    main()
