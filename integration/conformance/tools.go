//go:build tools

// Package conformance pins the version of runtime-tools whose validation programs `make conformance` builds and runs.
package conformance

import (
	_ "github.com/opencontainers/runtime-tools/cmd/runtimetest"
	_ "github.com/opencontainers/runtime-tools/validation/create"
)
