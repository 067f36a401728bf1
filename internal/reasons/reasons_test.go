package reasons

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/authkey/authkey/policy"
)

const root = "../.."

// word is what a reason or note looks like.
var word = regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)

// constantsOf returns the values of the string constants of a type in a folder's sources.
func constantsOf(t *testing.T, dir, typeName string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatal(err, dir)
	}
	var found []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || spec.Type == nil || !isType(spec.Type, typeName) {
				return true
			}
			for _, value := range spec.Values {
				if lit, ok := value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if text, err := strconv.Unquote(lit.Value); err == nil && text != "" {
						found = append(found, text)
					}
				}
			}
			return true
		})
	}
	if len(found) == 0 {
		t.Errorf("%s: no constant of type %s", dir, typeName)
	}
	return found
}

func isType(e ast.Expr, name string) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == name
	case *ast.SelectorExpr:
		return e.Sel.Name == name
	}
	return false
}

// TestNoneMissing: the list has every word that the code can say.
func TestNoneMissing(t *testing.T) {
	said := constantsOf(t, "verifier", "Reason")
	said = append(said, constantsOf(t, "milter", "Reason")...)
	said = append(said, constantsOf(t, "internal/attach", "Reason")...)
	said = append(said, constantsOf(t, "milter", "note")...)
	said = append(said, strings.Split((policy.Notes(1<<16-1)).String(), ",")...)
	listed := map[string]bool{}
	for _, g := range Groups() {
		here := map[string]bool{}
		for _, e := range g.Entries {
			if here[e.Word] || !word.MatchString(e.Word) || e.Meaning == "" {
				t.Errorf("%s: %+v", g.Title, e)
			}
			here[e.Word], listed[e.Word] = true, true
		}
	}
	if len(said) < 40 {
		t.Errorf("only %d words were found in the code", len(said))
	}
	for _, w := range said {
		if !listed[w] {
			t.Errorf("%s is said by the code and not in the list", w)
		}
	}
}

// TestDocs: docs/reasons.md is what the list makes. AUTHKEY_UPDATE_DOCS=1 writes it.
func TestDocs(t *testing.T) {
	path := filepath.Join(root, "docs", "reasons.md")
	if os.Getenv("AUTHKEY_UPDATE_DOCS") != "" {
		if err := os.WriteFile(path, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != Markdown() {
		t.Error("docs/reasons.md is not what the list makes: AUTHKEY_UPDATE_DOCS=1 go test ./internal/reasons")
	}
}
