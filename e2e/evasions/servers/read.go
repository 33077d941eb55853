// Parses bodies like a lenient server in Go. The encoding/json decoder ignores the case of keys, and reads only the first
// document. Reads one path per line from stdin, and writes one line of JSON for each.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

type known struct {
	Model     any `json:"model"`
	Stream    any `json:"stream"`
	MaxTokens any `json:"max_tokens"`
	N         any `json:"n"`
}

func read(path string) map[string]any {
	body, err := os.ReadFile(path)
	if err != nil {
		panic(err)
	}
	var document any
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&document); err != nil {
		return map[string]any{"error": err.Error()}
	}
	var fields known
	if _, ok := document.(map[string]any); ok {
		if err := json.NewDecoder(bytes.NewReader(body)).Decode(&fields); err != nil {
			return map[string]any{"error": err.Error()}
		}
	}
	return map[string]any{
		"model": fields.Model, "stream": fields.Stream, "max_tokens": fields.MaxTokens, "n": fields.N, "document": document,
	}
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	encoder := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		if err := encoder.Encode(read(lines.Text())); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
