// Package design has tests only: they hold the tree against docs/design.md, and the public
// packages against a program of somebody else's.
package design
