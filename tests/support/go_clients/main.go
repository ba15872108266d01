// Clients that Debian does not have, in one program: CLIENT ARGUMENTS... As one it is linked once.
package main

import (
	"fmt"
	"os"

	crane "github.com/google/go-containerregistry/cmd/crane/cmd"
	oras "oras.land/oras/cmd/oras/root"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(client string, arguments []string) error {
	switch client {
	case "crane":
		crane.Root.SetArgs(arguments)
		return crane.Root.Execute()
	case "oras":
		command := oras.New()
		command.SetArgs(arguments)
		return command.Execute()
	case "stargz-make":
		return makeLayer(arguments[0], arguments[1])
	case "stargz-read":
		return readLayer(arguments)
	}
	return fmt.Errorf("no client %q here", client)
}
