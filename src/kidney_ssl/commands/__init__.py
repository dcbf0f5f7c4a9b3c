"""The subcommands of `kidney-ssl`: each module adds its own to the parser with `add_commands`."""
