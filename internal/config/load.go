package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
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
	if loaded.Settings, faults = loadFile(milterSchema, path, environ, &loaded.Config); len(faults) > 0 {
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

// InetFault is the fault of a socket of that network and address on which no keys may be
// attached, if there is one: whoever connects to an inet socket, or to a unix socket in the
// abstract name space, can claim any login, and be handed that login's key.
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
func loadFile(s *schema, path string, environ []string, config any) (Settings, Faults) {
	var data []byte
	var info fs.FileInfo
	if path != "" {
		var fault *Fault
		if data, fault = readFile(path); fault != nil {
			return Settings{}, Faults{*fault}
		}
		info, _ = os.Stat(path) // it is only compared, where there is one
	}
	settings, faults := load(s, path, data, environ, config)
	settings.info, settings.put = info, info != nil && diskfile.Put(path, info)
	return settings, faults
}

// load checks the data of a file and the environment against a schema, lays
// both over the defaults and decodes the outcome into config, a pointer to the
// struct that belongs to the schema.
func load(s *schema, path string, data []byte, environ []string, config any) (Settings, Faults) {
	w := walker{schema: s, file: path, values: map[string]any{}, lines: map[string]int{}}
	w.walk(data)
	env, envFaults := s.environment(environ)
	if faults := append(w.faults, envFaults...); len(faults) > 0 {
		return Settings{}, faults
	}

	v := viper.New()
	for _, k := range s.keys {
		v.SetDefault(k.name, k.def)
	}
	if err := v.MergeConfigMap(nest(w.values)); err != nil {
		return Settings{}, Faults{{File: path, Problem: fmt.Sprintf("cannot be merged: %v", err)}}
	}
	// The environment is handed to us, so viper cannot look there for itself.
	for name, raw := range env {
		v.Set(name, raw)
	}
	result := Settings{schema: s, file: path, data: data, lines: w.lines, values: map[string]any{}, sources: map[string]string{}}
	for _, k := range s.keys {
		result.values[k.name] = v.Get(k.name)
		result.sources[k.name] = SourceDefault
		if _, ok := w.values[k.name]; ok {
			result.sources[k.name] = SourceFile
		}
		if _, ok := env[k.name]; ok {
			result.sources[k.name] = SourceEnvironment
		}
	}
	if err := v.UnmarshalExact(config, strict); err != nil {
		return Settings{}, Faults{{File: path, Problem: fmt.Sprintf("cannot be decoded: %v", err)}}
	}
	return result, nil
}

// nest turns values by key into maps within maps.
func nest(values map[string]any) map[string]any {
	root := map[string]any{}
	for key, value := range values {
		parts := strings.Split(key, ".")
		m := root
		for _, section := range parts[:len(parts)-1] {
			inner, ok := m[section].(map[string]any)
			if !ok {
				inner = map[string]any{}
				m[section] = inner
			}
			m = inner
		}
		m[parts[len(parts)-1]] = value
	}
	return root
}

// strict makes viper's decoder turn text into our types and nothing else into
// anything else.
func strict(c *mapstructure.DecoderConfig) {
	c.WeaklyTypedInput = false
	c.DecodeHook = mapstructure.DecodeHookFuncType(decodeText)
}

// textTypes are the types that a text is decoded into.
var textTypes = map[reflect.Type]func(string) (any, error){
	reflect.TypeFor[time.Duration](): parsed(parseDuration),
	reflect.TypeFor[netip.Prefix]():  parsed(parseNetwork),
	reflect.TypeFor[fs.FileMode]():   parsed(parseFileMode),
	reflect.TypeFor[Listen]():        parsed(parseListen),
	reflect.TypeFor[Rate]():          parsed(parseRate),
	reflect.TypeFor[ServerListen]():  parsed(parseServerListen),
	// The one text that stands in place of this list is "all".
	reflect.TypeFor[RecipientDomains](): func(string) (any, error) { return RecipientDomains(nil), nil },
}

func decodeText(_, to reflect.Type, data any) (any, error) {
	s, ok := data.(string)
	if parse := textTypes[to]; ok && parse != nil {
		return parse(s)
	}
	return data, nil
}

// Settings answers what the values of a configuration are and where they come
// from.
type Settings struct {
	schema  *schema
	file    string         // its path
	data    []byte         // what is in it
	info    fs.FileInfo    // what it was
	put     bool           // it was put in its place whole
	lines   map[string]int // of what the file sets, by key, field or element
	values  map[string]any // raw, by key
	sources map[string]string

	idle []Fault
}

// endOfDocument is the line with which YAML ends a document. Whoever ends his file with it
// says that it is whole.
const endOfDocument = "..."

// CutOff reports whether the file is a beginning of what other's file was, and says nothing
// that shows that this is meant: somebody is writing it, or the disk was full. Every key
// that is missing would silently fall back to its default. What differs in comments and
// empty lines only, or ends with a line "...", is not cut off. Nor is another file that was
// put in the place of the one before and not written since, unless it is empty.
func (s Settings) CutOff(other Settings) bool {
	rest, begins := bytes.CutPrefix(other.data, s.data)
	if !begins || len(rest) == 0 {
		return false
	}
	if len(s.data) > 0 && s.info != nil && other.info != nil && !os.SameFile(s.info, other.info) && s.put {
		return false
	}
	last := strings.TrimSpace(string(s.data))
	if last == endOfDocument || strings.HasSuffix(last, "\n"+endOfDocument) {
		return false
	}
	for line := range strings.Lines(string(rest)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && line != endOfDocument {
			return true
		}
	}
	return false
}

// ErrCutOff refuses a configuration that is CutOff.
var ErrCutOff = errors.New(`looks cut off: it is the beginning of the one in force; if that is meant, end it with a line "..."`)

// Warnings says what may be wrong with the file, though it can be used.
func (s Settings) Warnings() (all []string) {
	switch {
	case s.file == "":
	case len(s.data) == 0:
		all = append(all, s.file+": is empty, so that every key has its default")
	case s.data[len(s.data)-1] != '\n':
		all = append(all, s.file+": its last line has no end; it may have been cut off")
	}
	return all
}

// Source tells where a key's value comes from: SourceDefault, SourceFile or
// SourceEnvironment; "" for what is not a key.
func (s Settings) Source(key string) string { return s.sources[key] }

// IsSet tells whether the file or the environment sets a key, be it to its
// default.
func (s Settings) IsSet(key string) bool {
	source := s.Source(key)
	return source != "" && source != SourceDefault
}

// File is the path of the file that was read; "" where none was.
func (s Settings) File() string { return s.file }

// Set counts the keys that the file and the environment set.
func (s Settings) Set() (file, environment int) {
	for _, source := range s.sources {
		switch source {
		case SourceFile:
			file++
		case SourceEnvironment:
			environment++
		}
	}
	return file, environment
}

// Setting is a key with its value and where that comes from.
type Setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"` // as a file has it: string, bool, int, or a list; no passwords
	Source string `json:"source"`
}

// Effective returns every key's setting, in the order of the table.
func (s Settings) Effective() []Setting {
	all := make([]Setting, len(s.schema.keys))
	for i, k := range s.schema.keys {
		value := s.values[k.name]
		if dsn, ok := value.(string); ok && k.kind.secret {
			value = DSN(dsn).String()
		}
		all[i] = Setting{k.name, value, s.Source(k.name)}
	}
	return all
}

// NotActedOn names what the user has set and this build accepts but does not
// act on yet: keys, and "key: value: what is missing" for values that are acted
// on in part. What equals the default is not named.
func (s Settings) NotActedOn() []string {
	var names []string
	for _, k := range s.schema.keys {
		value := s.values[k.name]
		if k.kind.same(value, k.def) {
			continue
		}
		if !k.acted {
			names = append(names, k.name)
			continue
		}
		word, ok := value.(string)
		if !ok || k.kind.partly == nil {
			continue
		}
		if missing := k.kind.partly(word); missing != "" {
			names = append(names, fmt.Sprintf("%s: %s", k.name, missing))
		}
	}
	return names
}

// Idle says what is set, and accepted, and has no effect, each with its reason.
func (s Settings) Idle() []Fault { return s.idle }

// Fault makes a fault of a value which only shows with what the value names, such
// as a file. key may be one of an object in a list: domains[0].secret_file.
func (s Settings) Fault(key, problem, want string) Fault {
	f := Fault{File: s.file, Line: s.lines[key], Key: key, Problem: problem, Want: want}
	if i := strings.LastIndexByte(key, '.'); f.Line == 0 && i > 0 {
		f.Line = s.lines[key[:i]] // of the object that leaves it to its default
	}
	if k, ok := s.schema.byName[key]; ok && s.Source(key) == SourceEnvironment {
		f.File, f.Line = "$"+s.schema.envName(k), 0
	}
	if f.File == "" {
		f.File = s.schema.file
	}
	return f
}
