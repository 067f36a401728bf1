package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/authkey/authkey/internal/lab"
	"github.com/authkey/authkey/internal/testmta"
)

const policyDoc = "../../docs/policy.md"

// TestRecipes runs every configuration that docs/policy.md prints, byte for byte,
// in front of a real Postfix, and sends what the table below it lists.
func TestRecipes(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(policyDoc)
	must(t, err)
	before, recipes, _ := strings.Cut(string(doc), "\n## Ten recipes\n")
	for i, example := range fenced(before) {
		checkExample(t, i, example)
	}
	w := recipeWorld(t)
	listener := testmta.Listener{Name: "notices", Options: listenerOptions(before)}
	o := newOffice(t, w, func(t *testing.T, socket string) (testmta.MTA, string) {
		postfix, err := testmta.StartPostfix(t.Context(), testmta.PostfixOptions{Hostname: "mx1.example.com", Milters: []string{socket},
			RecipientDomains: []string{"example.com", "lists.example.com", "one.dept.example.com"}, Listeners: []testmta.Listener{listener}})
		must(t, err)
		return postfix, postfix.Listener(listener.Name)
	})
	// What is different here from where the configuration will be used.
	o.milter.Env = []string{
		"AUTHKEY_MILTER_LISTEN=" + o.milter.Listen, "AUTHKEY_MILTER_SOCKET_MODE=0666",
		"AUTHKEY_MILTER_DNS_SERVERS=" + w.DNS.Addr(), "AUTHKEY_MILTER_VERIFY_ALLOW_NETWORKS=127.0.0.0/8",
		"AUTHKEY_MILTER_DNS_TIMEOUT=20s", "AUTHKEY_MILTER_VERIFY_TIMEOUT=45s", "AUTHKEY_MILTER_VERIFY_CONNECT_TIMEOUT=20s", "AUTHKEY_MILTER_VERIFY_REPLY_TIMEOUT=20s",
		"AUTHKEY_MILTER_SUBMISSION_NETWORKS=", "AUTHKEY_MILTER_NOTIFY_SMTP=" + o.relay, "AUTHKEY_MILTER_NOTIFY_STATE_DIR=" + o.places["STATE"],
	}
	must(t, o.milter.Stop(patience))
	sections := strings.Split(recipes, "\n### ")[1:]
	if len(sections) != 10 {
		t.Fatalf("%d recipes, want ten", len(sections))
	}
	for _, section := range sections {
		title, text, _ := strings.Cut(section, "\n")
		text, _, _ = strings.Cut(text, "\n## ")
		t.Run(title, func(t *testing.T) { o.cook(t, text) })
	}
}

// listenerOptions are those of the service in master.cf that notices go to.
func listenerOptions(text string) (options []string) {
	for line := range strings.Lines(text) {
		if option, ok := strings.CutPrefix(strings.TrimSpace(line), "-o "); ok {
			options = append(options, option)
		}
	}
	return options
}

// recipeWorld has the domains of the recipes.
func recipeWorld(t *testing.T) *lab.World {
	w := newWorld(t)
	for domain, locals := range map[string][]string{
		"example.com": {"boss"}, "bank.example": {"boss"}, "partner.example": {"alice"}, "shop.example": {"alice"},
		"down.example": {"alice"}, "lists.partner.example": {"announce"},
	} {
		must(t, w.AddDomain(domain, locals...))
	}
	port, _, err := w.ServeAS("example.com", "bank.example", "partner.example", "shop.example", "lists.partner.example")
	must(t, err)
	gone, err := w.RefusingPort()
	must(t, err)
	for domain, record := range map[string]string{
		"example.com": lab.ASRecord(port, "req=yes"), "bank.example": lab.ASRecord(port, "req=yes"), "partner.example": lab.ASRecord(port),
		"shop.example": lab.ASRecord(port), "lists.partner.example": lab.ASRecord(port), "down.example": lab.ASRecord(gone),
	} {
		must(t, w.Publish(domain, record))
	}
	return w
}

// checkExample has the program read an example of the text before the recipes.
func checkExample(t *testing.T, number int, example string) {
	t.Helper()
	dir := t.TempDir()
	conf, prefs := example, ""
	if strings.HasPrefix(example, "- ") {
		conf, prefs = "preferences: {source: \"file:/etc/authkey/preferences.yaml\"}\n", example
	}
	must(t, os.WriteFile(filepath.Join(dir, "preferences.yaml"), []byte(prefs), 0o644))
	here := strings.NewReplacer("/etc/authkey/", dir+"/", "/var/lib/authkey", dir) // what packages make
	path := writeConfig(t, here.Replace(conf))
	if out, code := runMilter(t, "", "check", "--config", path); code != 0 || !strings.HasPrefix(out, path+" is right: ") || strings.Count(out, "\n") != 1 {
		t.Errorf("example %d: check: exit %d\n%s\n%s", number+1, code, out, example)
	}
}

// cook runs one recipe: its configuration, its preferences if it has any, and the
// messages of its table.
func (o *office) cook(t *testing.T, text string) {
	blocks, rows := fenced(text), tableRows(text)
	if len(blocks) == 0 || len(rows) < 2 {
		t.Fatalf("%d blocks, %d messages", len(blocks), len(rows))
	}
	dir := filepath.Dir(o.milter.Config)
	for i, block := range blocks {
		path := o.milter.Config
		if i > 0 {
			path = filepath.Join(dir, "preferences.yaml")
		}
		must(t, os.WriteFile(path, []byte(strings.ReplaceAll(block, "/etc/authkey/", dir+"/")), 0o644))
	}
	if out, code := runMilter(t, "", "check", "--config", o.milter.Config); code != 0 || !strings.Contains(out, o.milter.Config+" is right: ") {
		t.Fatalf("check: exit %d\n%s", code, out)
	}
	o.start(t)
	defer func() { must(t, o.milter.Stop(patience)) }()
	for _, row := range rows {
		o.tryRow(t, row)
	}
}

// tryRow sends the message of a row and compares what becomes of it.
func (o *office) tryRow(t *testing.T, row map[string]string) {
	t.Helper()
	m := &mail{from: row["MAIL FROM"], author: row["From"], rcpts: strings.Split(row["to"], ", ")}
	if m.author == "" {
		m.author = m.from
	}
	if row["field"] != "" {
		m.fields = row["field"] + "\r\n"
	}
	switch row["AuthKey"] {
	case "right":
		m.fields += "X-Auth-Key: " + o.key(t, m.from) + "\r\n"
	case "wrong": // another address's, which is right there
		m.fields += "X-Auth-Key: " + o.key(t, "alice@"+withAS) + "\r\n"
	case "none":
	default:
		t.Fatalf("AuthKey %q", row["AuthKey"])
	}
	transaction := m.transaction()
	if row["client"] != "" {
		transaction.XClient = "ADDR=" + row["client"]
	}
	c := dialSMTP(t, o.mta)
	since := len(o.milter.Log())
	reply, err := c.Send(transaction)
	must(t, err)
	must(t, c.Quit())
	got := o.outcome(t, m, reply)
	for i, box := range got.Boxes {
		got.Boxes[i], _, _ = strings.Cut(box, " for ")
	}
	want, log, field := readPromise(t, row["what becomes of it"], m.rcpts, reply)
	if !strings.HasPrefix(got.Reply, want.Reply) {
		t.Errorf("reply %q", got.Reply)
	}
	got.Reply = want.Reply
	diff(t, got, want)
	o.wantLog(t, since, log...)
	if field != "" {
		has := slices.Contains(delivered(t, o.mta, m).Values("Authentication-Results"), strings.TrimPrefix(row["field"], "Authentication-Results: "))
		if has != (field == "with that field") {
			t.Errorf("the field is there: %v", has)
		}
	}
	if t.Failed() {
		t.Fatalf("the row of %v", row)
	}
}

// readPromise reads the last cell of a row: clauses with "; " between.
func readPromise(t *testing.T, cell string, rcpts []string, reply testmta.Outcome) (want outcome, log []string, field string) {
	t.Helper()
	want.Reply = "250"
	var waits []string
	for clause := range strings.SplitSeq(cell, "; ") {
		verb, rest, _ := strings.Cut(clause, " ")
		list := strings.Split(rest, ", ")
		switch {
		case clause == "gone":
		case clause == "with that field", clause == "without that field":
			field = clause
		case clause == "delivered":
			want.Boxes = append(want.Boxes, rcpts...)
		case clause == "marked":
			want.Boxes = append(want.Boxes, marked(rcpts)...)
		case clause == "held":
			want.Held = rcpts
		case strings.HasPrefix(clause, "delivered to "):
			want.Boxes = append(want.Boxes, strings.Split(clause[len("delivered to "):], ", ")...)
		case strings.HasPrefix(clause, "marked to "):
			want.Boxes = append(want.Boxes, marked(strings.Split(clause[len("marked to "):], ", "))...)
		case strings.HasPrefix(clause, "notice to "):
			want.Notices = append(want.Notices, clause[len("notice to "):])
		case strings.HasPrefix(clause, "DSN about "):
			want.DSN = append(want.DSN, clause[len("DSN about "):])
		case verb == "452":
			waits = list
		case verb == "451":
			want.Reply = deferral
		case verb == "550":
			want.Reply = "550 5.7.1 "
			if !strings.HasSuffix(reply.Final.Text, rest) {
				t.Errorf("reply %q, want one that ends in %q", reply.Final.Text, rest)
			}
		case strings.HasPrefix(clause, "`") && strings.HasSuffix(clause, "`"):
			log = append(log, " "+strings.Trim(clause, "`")+" ")
		default:
			t.Fatalf("not to be understood: %q", clause)
		}
	}
	for i, r := range reply.Rcpts {
		if waiting := r.Code == 452; waiting != slices.Contains(waits, rcpts[i]) {
			t.Errorf("RCPT %s: %s", rcpts[i], r)
		}
	}
	return want, log, field
}

func marked(rcpts []string) (list []string) {
	for _, rcpt := range rcpts {
		list = append(list, rcpt+" marked")
	}
	return list
}

var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// fenced are the YAML blocks of a text.
func fenced(text string) (blocks []string) {
	for _, m := range yamlBlock.FindAllStringSubmatch(text, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// tableRows reads a table, its cells by the names of the columns.
func tableRows(text string) (rows []map[string]string) {
	var names []string
	for line := range strings.Lines(text) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| ") {
			continue // no table, or the line below its head
		}
		cells[0] = strings.TrimPrefix(cells[0], "| ")
		last := len(cells) - 1
		cells[last] = strings.TrimSuffix(cells[last], " |")
		if names == nil {
			names = cells
			continue
		}
		row := make(map[string]string)
		for i, cell := range cells {
			row[names[i]] = strings.TrimSpace(cell)
		}
		rows = append(rows, row)
	}
	return rows
}
