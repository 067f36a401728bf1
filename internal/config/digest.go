package config

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
)

// FromEnvironment names the keys whose value comes from the environment, in order.
func (s Settings) FromEnvironment() []string {
	var names []string
	for _, k := range s.schema.keys {
		if s.Source(k.name) == SourceEnvironment {
			names = append(names, k.name)
		}
	}
	return names
}

// Digest returns a hexadecimal SHA-256 of what the file says: two readings of a file have the
// same digest if no value has changed, also if comments have. The keys in without are left
// out: a process that has them from its environment does not know what the file says of
// them. Every password counts as the same.
func (s Settings) Digest(without []string) string {
	h := sha256.New()
	enc := json.NewEncoder(h)
	for _, setting := range s.Effective() {
		if slices.Contains(without, setting.Key) {
			continue
		}
		// Values are as a file has them, so that each can be written as JSON. If one could
		// not, it would still be in the digest.
		if err := enc.Encode([]any{setting.Key, setting.Value}); err != nil {
			fmt.Fprintf(h, "%s %v\n", setting.Key, setting.Value)
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// FileDigest is the Digest of what the file alone says, as it was read, without the
// environment: what another process finds that has another environment.
func (l *LoadedServer) FileDigest() string {
	file, faults := load(serverSchema(new(Server)), l.Path, l.data, nil)
	if len(faults) > 0 { // not of values that were found right before
		return ""
	}
	return file.Digest(nil)
}
