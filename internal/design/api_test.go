package design

import (
	"go/importer"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/authkey/authkey"

// public are the packages that others may import.
var public = []string{module + "/verifier", module + "/policy", module + "/milter"}

// TestPublicAPI: no exported identifier of a public package has a type that only an
// internal package names: nobody outside could make a value of it, or declare one.
func TestPublicAPI(t *testing.T) {
	from := importer.ForCompiler(token.NewFileSet(), "gc", exportData(t))
	w := &walker{t: t, named: make(map[*types.TypeName]bool), seen: make(map[types.Type]bool)}
	var scopes []*types.Scope
	for _, path := range public {
		p, err := from.Import(path)
		if err != nil {
			t.Fatal(err)
		}
		scopes = append(scopes, p.Scope())
		for _, name := range p.Scope().Names() {
			if o, ok := p.Scope().Lookup(name).(*types.TypeName); ok && o.Exported() && o.IsAlias() {
				if n, ok := types.Unalias(o.Type()).(*types.Named); ok {
					w.named[n.Obj()] = true
				}
			}
		}
	}
	for i, scope := range scopes {
		for _, name := range scope.Names() {
			if o := scope.Lookup(name); o.Exported() {
				w.walk(o.Type(), strings.TrimPrefix(public[i], module+"/")+"."+name)
			}
		}
	}
	if len(w.seen) < 100 {
		t.Errorf("only %d types were looked at", len(w.seen))
	}
}

// exportData finds what the compiler has written of a package's exported identifiers.
func exportData(t *testing.T) func(path string) (io.ReadCloser, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-export", "-f", "{{.ImportPath}} {{.Export}}"}, public...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(t, err)
	files := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[path] = file
	}
	return func(path string) (io.ReadCloser, error) { return os.Open(files[path]) }
}

// A walker looks at every type that an exported identifier shows.
type walker struct {
	t     *testing.T
	named map[*types.TypeName]bool // internal types that a public package has given a name
	seen  map[types.Type]bool
}

func (w *walker) walk(t types.Type, where string) {
	t = types.Unalias(t)
	if w.seen[t] {
		return
	}
	w.seen[t] = true
	switch t := t.(type) {
	case *types.Named:
		w.walkNamed(t, where)
	case *types.Pointer:
		w.walk(t.Elem(), where)
	case *types.Slice:
		w.walk(t.Elem(), where)
	case *types.Array:
		w.walk(t.Elem(), where)
	case *types.Chan:
		w.walk(t.Elem(), where)
	case *types.Map:
		w.walk(t.Key(), where)
		w.walk(t.Elem(), where)
	case *types.Signature:
		w.walk(t.Params(), where)
		w.walk(t.Results(), where)
	case *types.Tuple:
		for v := range t.Variables() {
			w.walk(v.Type(), where)
		}
	case *types.Struct:
		for f := range t.Fields() {
			if f.Exported() {
				w.walk(f.Type(), where+"."+f.Name())
			}
		}
	case *types.Interface:
		for m := range t.Methods() {
			w.walk(m.Type(), where+"."+m.Name())
		}
	}
}

func (w *walker) walkNamed(t *types.Named, where string) {
	pkg := t.Obj().Pkg()
	if pkg == nil || !strings.HasPrefix(pkg.Path(), module+"/") {
		return // of the language, the standard library, or another module
	}
	if strings.Contains(pkg.Path(), "/internal/") && !w.named[t.Obj()] {
		w.t.Errorf("%s shows %s, which no public package names", where, t)
	}
	w.walk(t.Underlying(), where)
	for m := range t.Methods() {
		if m.Exported() {
			w.walk(m.Type(), where+"."+m.Name())
		}
	}
}
