"""What deploy/ holds, held to the programs that it deploys."""
