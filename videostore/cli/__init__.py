"""The command line: one module per noun. docs/reference/cli.md is compared with it by a test."""
