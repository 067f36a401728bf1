package notify

import (
	"errors"
	"io"
	"strings"
	"text/template"
	"text/template/parse"
	"time"
)

// Samples of what templates are executed with: with everything there, and with
// everything empty that can be.
var (
	samples = map[string]any{
		kindDSN: DSNFields{
			Recipients: []string{"a@example.com", "b@example.com", "c@example.com"}, More: 1, Sender: "sender@example.org", Subject: "subject", QueueID: "queue-id",
			Arrived: time.Unix(0, 0), Checked: "sender@example.org", Result: "fail", Reason: "invalid-key", Reply: "550 5.7.1 reply", Host: "mx.example.com",
		},
		kindNotice: NoticeFields{
			Recipient: "rcpt@example.com", Domain: "example.com", Sender: "sender@example.org", From: "from@example.org", Subject: "subject",
			Client: "192.0.2.1", QueueID: "queue-id", Arrived: time.Unix(0, 0), Checked: "sender@example.org", Result: "fail", Reason: "invalid-key",
			Refused: true, Host: "mx.example.com",
		},
	}
	emptySamples = map[string]any{
		kindDSN:    DSNFields{Recipients: []string{""}},
		kindNotice: NoticeFields{},
	}
)

// checkTemplate finds at start what would otherwise fail when a message comes: a
// field that does not exist, in whatever branch, and a text without Subject.
func checkTemplate(tmpl *template.Template, kind string) error {
	all, err := everyBranch(tmpl)
	if err != nil {
		return err
	}
	// and and or evaluate as much as they need: with empty values that is more of
	// an or.
	for _, data := range []any{samples[kind], emptySamples[kind]} {
		if err := all.Execute(io.Discard, data); isFault(err) {
			return err
		}
	}
	// What is really executed has no excuse.
	for _, data := range []any{samples[kind], emptySamples[kind]} {
		if _, err := execute(tmpl, data); err != nil {
			return err
		}
	}
	return nil
}

// isFault tells what is wrong with a template in any case from a branch that meets
// values for which it was not meant. Package template has no types for that.
func isFault(err error) bool {
	var fault template.ExecError
	return errors.As(err, &fault) &&
		(strings.Contains(fault.Error(), "can't evaluate field") || strings.Contains(fault.Error(), "not defined"))
}

// everyBranch returns a copy of a template in which both branches of every
// condition are executed, one after the other.
func everyBranch(tmpl *template.Template) (*template.Template, error) {
	all := template.New(tmpl.Name())
	for _, t := range tmpl.Templates() {
		tree := t.Tree.Copy()
		unfold(tree.Root)
		if _, err := all.AddParseTree(t.Name(), tree); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// unfold replaces conditions by their pipeline and both their lists. A with or a
// range keeps its list, in which the dot is another, and has its else follow.
func unfold(list *parse.ListNode) {
	if list == nil {
		return
	}
	var nodes []parse.Node
	for _, node := range list.Nodes {
		var otherwise *parse.ListNode
		switch n := node.(type) {
		case *parse.IfNode:
			nodes = append(nodes, &parse.ActionNode{NodeType: parse.NodeAction, Pos: n.Pos, Line: n.Line, Pipe: n.Pipe})
			unfold(n.List)
			nodes = append(nodes, n.List.Nodes...)
			otherwise = n.ElseList
		case *parse.WithNode:
			unfold(n.List)
			otherwise, n.ElseList = n.ElseList, nil
			nodes = append(nodes, n)
		case *parse.RangeNode:
			unfold(n.List)
			otherwise, n.ElseList = n.ElseList, nil
			nodes = append(nodes, n)
		case *parse.BreakNode, *parse.ContinueNode: // they would hide what follows
		default:
			nodes = append(nodes, node)
		}
		if otherwise != nil {
			unfold(otherwise)
			nodes = append(nodes, otherwise.Nodes...)
		}
	}
	list.Nodes = nodes
}
