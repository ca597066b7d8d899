"""One module per `fcnseg` subcommand, and the dispatcher before them."""
