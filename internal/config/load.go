package config

import (
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/viper"

	"github.com/authkey/authkey/internal/diskfile"
)

// Where a value comes from.
const (
	SourceDefault     = "default"
	SourceFile        = "file"
	SourceEnvironment = "environment"
)

// Loaded is a configuration that has been read and found right.
type Loaded struct {
	Config Config
	Path   string // of the file; empty: no file was read
	Settings
}

// Load reads milter.yaml at path, with the environment (as os.Environ gives it)
// over it. An empty path means no file: defaults and environment. It reads
// afresh at each call and keeps nothing. The error is of type Faults.
func Load(path string, environ []string) (*Loaded, error) {
	loaded := &Loaded{Path: path}
	var faults Faults
	if loaded.Settings, faults = loadFile(milterSchema(&loaded.Config), path, environ); len(faults) > 0 {
		return nil, faults
	}
	for _, l := range loaded.Config.Listen {
		if fault, ok := loaded.InetFault(l.Network, l.Address); ok {
			return nil, Faults{fault}
		}
	}
	loaded.idle = loaded.findIdle()
	return loaded, nil
}

// InetFault returns the fault of a socket of that network and address, if keys are attached
// and the socket must not be used for that: anybody who connects to an inet socket, or to a
// unix socket in the abstract name space, can claim any login, and get that login's key.
func (l *Loaded) InetFault(network, address string) (fault Fault, ok bool) {
	c := l.Config.Attach
	private := network == "unix" && !strings.HasPrefix(address, "@") // an abstract socket has no mode
	if private || len(c.Domains) == 0 || c.AllowInet {
		return Fault{}, false
	}
	return l.Fault("listen", fmt.Sprintf("has the socket %s, and attach is set: whoever connects there can claim any login and is handed its key", address),
		"unix: sockets in the file system only, or attach.allow_inet: true where nobody but the MTA can reach it"), true
}

// loadFile is load of a file's data, if path names one.
func loadFile(s *schema, path string, environ []string) (Settings, Faults) {
	var data []byte
	var info fs.FileInfo
	if path != "" {
		var fault *Fault
		if data, info, fault = readFile(path); fault != nil {
			return Settings{}, Faults{*fault}
		}
	}
	settings, faults := load(s, path, data, environ)
	settings.info, settings.put = info, info != nil && diskfile.Put(path, info)
	return settings, faults
}

// load checks the data of a file and the environment against a schema, lays both over the
// defaults and sets the fields that the schema is bound to.
func load(s *schema, path string, data []byte, environ []string) (Settings, Faults) {
	w := walker{schema: s, file: path, values: map[string]any{}, lines: map[string]int{}}
	w.walk(data)
	env, envFaults := s.environment(environ)
	if faults := append(w.faults, envFaults...); len(faults) > 0 {
		return Settings{}, faults
	}

	// Viper says which layer counts. No name has its delimiter, so that every key is one
	// entry to it, whatever dots are in its name.
	layers := viper.NewWithOptions(viper.KeyDelimiter("\n"))
	for _, k := range s.keys {
		layers.SetDefault(k.name, k.def)
	}
	if err := layers.MergeConfigMap(w.values); err != nil {
		return Settings{}, Faults{{File: path, Problem: fmt.Sprintf("cannot be merged: %v", err)}}
	}
	// The environment is handed to us, so viper cannot look there for itself.
	for name, v := range env {
		layers.Set(name, v)
	}
	result := Settings{Content: Content{data: data}, schema: s, file: path, lines: w.lines, values: map[string]value{}, sources: map[string]string{}}
	for _, k := range s.keys {
		v := layers.Get(k.name).(value)
		k.set(v.parsed)
		result.values[k.name] = v
		result.sources[k.name] = SourceDefault
		if layers.InConfig(k.name) {
			result.sources[k.name] = SourceFile
		}
		if _, ok := env[k.name]; ok {
			result.sources[k.name] = SourceEnvironment
		}
	}
	return result, nil
}
