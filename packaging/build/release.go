package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// dateBill gives a bill of materials the date of the sources in place of that of its
// making.
func (b *build) dateBill(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var bill struct {
		Metadata struct {
			Timestamp string `json:"timestamp"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(text, &bill); err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	text = bytes.Replace(text, []byte(bill.Metadata.Timestamp), []byte(b.date.Format(time.RFC3339)), 1)
	return os.WriteFile(file, text, 0o644)
}

const checksums = "SHA256SUMS"

// writeChecksums writes SHA256SUMS of what was made.
func (b *build) writeChecksums() error {
	var sums strings.Builder
	slices.Sort(b.made)
	for _, name := range b.made {
		content, err := os.ReadFile(filepath.Join(b.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(content), name)
	}
	b.made = append(b.made, checksums)
	return os.WriteFile(filepath.Join(b.out, checksums), []byte(sums.String()), 0o644)
}
