"""Groups of commands that help whoever mistypes one."""

import difflib
import shlex

import click


class HelpfulGroup(click.Group):
    """Says which command was meant."""

    def resolve_command(self, ctx, args):
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 1)
            if close:
                meant = f"{ctx.command_path} {close[0]}"
            elif " " in args[0]:
                meant = f"galip sample {shlex.quote(args[0])}"
            else:
                meant = f"{ctx.command_path} --help"
            raise click.UsageError(
                f"no such command {args[0]!r}. Did you mean `{meant}`?", ctx
            ) from error
