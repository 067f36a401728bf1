package notify

import (
	"errors"
	"fmt"
	"reflect"
	"text/template"
	"text/template/parse"
	"time"
)

// Samples of what templates are executed with: with everything there, and with
// everything empty that can be.
var (
	sampleMessage = MessageFields{
		Sender: "sender@example.org", Subject: "subject", QueueID: "queue-id", Arrived: time.Unix(0, 0),
		Checked: "sender@example.org", Result: "fail", Reason: "invalid-key", Host: "mx.example.com",
	}
	samples = map[string][]any{
		kindDSN: {
			DSNFields{MessageFields: sampleMessage, Recipients: []string{"a@example.com", "b@example.com", "c@example.com"}, More: 1, Reply: "550 5.7.1 reply"},
			DSNFields{Recipients: []string{""}},
		},
		kindNotice: {
			NoticeFields{MessageFields: sampleMessage, Recipient: "rcpt@example.com", Domain: "example.com", From: "from@example.org", Client: "192.0.2.1", Refused: true},
			NoticeFields{},
		},
	}
)

// checkTemplate finds at start what would otherwise fail when a message comes: a field that
// does not exist, in any branch, and a text without Subject.
func checkTemplate(tmpl *template.Template, kind string) error {
	c := checker{tmpl: tmpl, message: reflect.TypeOf(samples[kind][0]), called: make(map[string]bool)}
	if c.checkTree(tmpl.Tree); c.faults != nil {
		return errors.Join(c.faults...)
	}
	for _, data := range samples[kind] {
		if _, err := execute(tmpl, data); err != nil {
			return err
		}
	}
	return nil
}

// A checker looks at every branch of a template, of which an execution sees some: are
// there the fields of the message that it names, and the templates? What is a field of
// something else, such as the dot in with and range, is left to the samples.
type checker struct {
	tmpl    *template.Template
	message reflect.Type // NoticeFields or DSNFields
	tree    *parse.Tree  // in which it is
	called  map[string]bool
	faults  []error
}

// checkTree looks at a template that is given the message.
func (c *checker) checkTree(tree *parse.Tree) {
	c.tree = tree
	c.check(tree.Root, c.message)
}

// check looks at a node. dot is the type of the dot; nil: not the message.
func (c *checker) check(node parse.Node, dot reflect.Type) {
	switch n := node.(type) {
	case *parse.ListNode:
		if n != nil { // there may be no else
			c.checkAll(n.Nodes, dot)
		}
	case *parse.PipeNode:
		if n != nil { // template may have no argument
			for _, command := range n.Cmds {
				c.checkAll(command.Args, dot)
			}
		}
	case *parse.ActionNode:
		c.check(n.Pipe, dot)
	case *parse.ChainNode:
		c.check(n.Node, dot)
	case *parse.IfNode:
		c.checkBranch(n.BranchNode, dot, dot)
	case *parse.WithNode:
		c.checkBranch(n.BranchNode, dot, nil)
	case *parse.RangeNode:
		c.checkBranch(n.BranchNode, dot, nil)
	case *parse.TemplateNode:
		c.checkCall(n, dot)
	case *parse.FieldNode:
		c.checkField(n, dot, n.Ident)
	case *parse.VariableNode:
		if n.Ident[0] == "$" {
			c.checkField(n, c.message, n.Ident[1:])
		}
	}
}

func (c *checker) checkAll(nodes []parse.Node, dot reflect.Type) {
	for _, node := range nodes {
		c.check(node, dot)
	}
}

// checkBranch looks at both lists. inner is the dot of the first.
func (c *checker) checkBranch(n parse.BranchNode, dot, inner reflect.Type) {
	c.check(n.Pipe, dot)
	c.check(n.List, inner)
	c.check(n.ElseList, dot)
}

// checkCall looks at a template that is called, once, if it is given the message.
func (c *checker) checkCall(n *parse.TemplateNode, dot reflect.Type) {
	c.check(n.Pipe, dot)
	callee := c.tmpl.Lookup(n.Name)
	switch {
	case callee == nil:
		c.fault(n, "there is no such template")
	case n.Pipe != nil && (dot != nil && n.Pipe.String() == "." || n.Pipe.String() == "$") && !c.called[n.Name]:
		c.called[n.Name] = true
		caller := c.tree
		c.checkTree(callee.Tree)
		c.tree = caller
	}
}

// checkField looks for a field or method, and for those of it that are named after it.
func (c *checker) checkField(node parse.Node, t reflect.Type, names []string) {
	for _, name := range names {
		if t == nil {
			return
		}
		if method, ok := t.MethodByName(name); ok {
			t = method.Type.Out(0)
			continue
		}
		var field reflect.StructField
		if t.Kind() == reflect.Struct {
			field, _ = t.FieldByName(name)
		}
		if t = field.Type; t == nil {
			c.fault(node, "there is no "+name)
		}
	}
}

// fault names the place of a node as package template does.
func (c *checker) fault(node parse.Node, what string) {
	place, text := c.tree.ErrorContext(node)
	c.faults = append(c.faults, fmt.Errorf("template: %s: %s: %s", place, text, what))
}
