// Package design has tests only: they compare the tree with docs/design.md, and build a
// program of another module from the public packages alone.
package design
