// Stands in for Node in a mesh whose control plane and sidecars are to have other clocks (test/e2e/mesh/fixtures/clocks.ts): they see an
// empty root without a shell, so it is one program without libraries. Everything else becomes Node as it is.
package main

import (
	"os"
	"strings"
	"syscall"
)

const shown = "/.pillion/bin/"

func main() {
	env := os.Environ()
	if clock := clockOf(os.Args); clock != "" {
		env = append(env,
			"LD_PRELOAD="+shown+"libfaketime.so",
			"FAKETIME_TIMESTAMP_FILE="+shown+"clocks/"+clock,
			"FAKETIME_CACHE_DURATION=1",
			"FAKETIME_DONT_FAKE_MONOTONIC=1",
			"FAKETIME_DISABLE_SHM=1",
		)
	}
	err := syscall.Exec(shown+"real-node", os.Args, env)
	os.Stderr.WriteString("real-node: " + err.Error() + "\n")
	os.Exit(126)
}

func clockOf(args []string) string {
	for i, arg := range args[:len(args)-1] {
		if !strings.HasSuffix(arg, "/src/main.js") {
			continue
		}
		switch args[i+1] {
		case "control":
			return "control"
		case "sidecar":
			host, _ := os.Hostname()
			own := "sidecar-" + strings.SplitN(host, "-", 2)[0]
			if _, err := os.Stat(shown + "clocks/" + own); err == nil {
				return own
			}
			return "sidecar"
		}
	}
	return ""
}
