package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestDSNIsRedacted(t *testing.T) {
	for dsn, want := range map[string]string{
		"":                                    "",
		"file:/etc/authkey/preferences":       "file:/etc/authkey/preferences",
		"sqlite:/var/lib/p.db?_auth_pass=s3x": "sqlite:/var/lib/p.db?_auth_pass=xxxxx",
		"postgres://h/d":                      "postgres://h/d",
		"postgres://u@h/d":                    "postgres://u@h/d",
		"postgres://u:s3x@h/d":                "postgres://u:xxxxx@h/d",
		"postgres://u:s3x%40%2F@h:5/d?a=b":    "postgres://u:xxxxx@h:5/d?a=b",
		"postgres://h/d?user=u&PassWord=s3x&sslmode=x&%70assword=s3x": "postgres://h/d?user=u&PassWord=xxxxx&sslmode=x&%70assword=xxxxx",
		"mysql://u:s3x@h:%/d": "mysql://xxxxx@h:%/d", // never loaded, yet not shown
	} {
		d := DSN(dsn)
		text, err := d.MarshalText()
		for _, got := range []string{d.String(), fmt.Sprint(d), fmt.Sprintf("%+v", struct{ S DSN }{d}), fmt.Sprintf("%#v", d), string(text)} {
			if err != nil || !strings.Contains(got, want) || strings.Contains(got, "s3x") {
				t.Errorf("%s shown as %s (%v), want %s", dsn, got, err, want)
			}
		}
	}
}

func TestWriteEffective(t *testing.T) {
	loaded := mustLoad(t, "preferences: {source: 'postgres://u:s3cret@h/d'}\nlisten: []\nauthserv_id: \"0660\"\n"+
		"policy: {rules: [{recipient: a.example, fail: mark}]}\nmark: {value: 'a <b>'}", "AUTHKEY_MILTER_DNS_TIMEOUT=1s")
	var text, js bytes.Buffer
	if err := errors.Join(WriteEffective(&text, loaded.Settings, false), WriteEffective(&js, loaded.Settings, true)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	var got []string
	for _, l := range lines {
		got = append(got, strings.Join(strings.Fields(l), " "))
	}
	for _, want := range []string{
		"KEY VALUE SOURCE",
		"mode enforce default",
		"listen [] file",
		`authserv_id "0660" file`,
		"dns.timeout 1s environment",
		`submission.networks ["127.0.0.0/8","::1/128"] default`,
		"verify.require_tls false default",
		"cache.entries 1000000 default",
		`policy.temperror "" default`,
		`policy.rules [{"fail":"mark","recipient":"a.example"}] file`,
		"mark.value a <b> file",
		"preferences.source postgres://u:xxxxx@h/d file",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, text.String())
		}
	}
	if len(lines) != len(milterSchema(new(Config)).keys)+1 {
		t.Errorf("%d lines for %d keys", len(lines), len(milterSchema(new(Config)).keys))
	}
	column := strings.Index(lines[0], "VALUE")
	for _, l := range lines {
		if l[column-1] != ' ' || l[column] == ' ' {
			t.Errorf("not aligned: %q", l)
		}
	}
	var settings []Setting
	if err := json.Unmarshal(js.Bytes(), &settings); err != nil {
		t.Fatal(err)
	}
	if len(settings) != len(milterSchema(new(Config)).keys) {
		t.Errorf("%d settings in JSON", len(settings))
	}
	if diff := cmp.Diff(Setting{"listen", []any{}, "file"}, settings[1]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if strings.Contains(text.String()+js.String(), "s3cret") {
		t.Error("a password in the output")
	}
}

func TestDescribe(t *testing.T) {
	schema := milterSchema(new(Config))
	docs := map[string]KeyDoc{}
	for _, d := range Describe() {
		if _, twice := docs[d.Key]; twice {
			t.Errorf("%s comes twice", d.Key)
		}
		docs[d.Key] = d
		if d.Doc == "" || d.Type == "" || strings.ContainsAny(d.Doc+d.Type+d.Default, "\n\t") {
			t.Errorf("%s: an empty or broken line: %+v", d.Key, d)
		}
	}
	for _, want := range []KeyDoc{
		{"mode", "AUTHKEY_MILTER_MODE", "enforce|test", "enforce", schema.byName["mode"].doc, true},
		{"verify.connect_timeout", "AUTHKEY_MILTER_VERIFY_CONNECT_TIMEOUT", "duration", "2s", schema.byName["verify.connect_timeout"].doc, true},
		{"verify.allow_ports", "AUTHKEY_MILTER_VERIFY_ALLOW_PORTS", "list of ports", "[]", schema.byName["verify.allow_ports"].doc, true},
		{"socket.mode", "AUTHKEY_MILTER_SOCKET_MODE", "octal mode", `"0660"`, schema.byName["socket.mode"].doc, true},
		{"policy.rules", "", "list of rules", "[]", schema.byName["policy.rules"].doc, true},
		{"policy.rules[].fail", "", "action", "", "action for result fail; not set: the next rule says", true},
		{"attach.domains[].avt", "", "duration", "24h", "AuthKey Valid Time: how long one key is attached", true},
	} {
		if diff := cmp.Diff(want, docs[want.Key]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	// A default as printed is a default as a file has it.
	for _, k := range schema.keys {
		var back any
		if err := yaml.Unmarshal([]byte(docs[k.name].Default), &back); err != nil || !cmp.Equal(back, k.def.raw) {
			t.Errorf("%s: default %s reads as %v (%v), want %v", k.name, docs[k.name].Default, back, err, k.def.raw)
		}
	}
}

func TestWriteDescribe(t *testing.T) {
	var text, js bytes.Buffer
	if err := errors.Join(WriteDescribe(&text, Describe(), false), WriteDescribe(&js, Describe(), true)); err != nil {
		t.Fatal(err)
	}
	var docs []KeyDoc
	if err := json.Unmarshal(js.Bytes(), &docs); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Describe(), docs); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if len(lines) != len(docs)+1 {
		t.Errorf("%d lines for %d keys", len(lines), len(docs))
	}
	for i, d := range docs {
		l := lines[i+1]
		if !strings.HasPrefix(l, d.Key+" ") || strings.Contains(l, "(no effect yet) "+d.Doc) == d.Implemented || !strings.Contains(l, d.Default) {
			t.Errorf("%s: %q", d.Key, l)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("broken") }

func TestWriteError(t *testing.T) {
	loaded := mustLoad(t, "")
	for _, asJSON := range []bool{false, true} {
		if WriteEffective(brokenWriter{}, loaded.Settings, asJSON) == nil || WriteDescribe(brokenWriter{}, Describe(), asJSON) == nil {
			t.Errorf("json %v: the writer's error is lost", asJSON)
		}
	}
}
