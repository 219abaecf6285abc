// Judges tiles, proofs and notes with golang.org/x/mod/sumdb, the code of the Go checksum database.
//
// Reads one JSON object on standard input and writes one with the answers; tests/unit/test_ledger_go.py asks.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8 // of the tiles of c2sp.org/tlog-tiles

type folder string

func (f folder) Height() int                         { return height }
func (f folder) SaveTiles(_ []tlog.Tile, _ [][]byte) {}

// ReadTiles reads what was published; its paths do not name the height.
func (f folder) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(string(f), path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

type proof struct {
	Index, Size int64
	Hash, Root  tlog.Hash
	Path        []tlog.Hash
}

type question struct {
	Folder      string
	Size        int64
	Root        tlog.Hash
	Entries     []int64 // to be read and proved from the tiles
	Earlier     []int64 // trees to be proved a prefix
	Inclusion   []proof
	Consistency []proof // Index and Hash are the earlier tree's size and root
	Vkeys       []string
	Notes       []string
}

type answer struct {
	Leaves           []tlog.Hash
	Proofs, Prefixes [][]tlog.Hash
	Inclusion        []bool
	Consistency      []bool
	Notes            []string
}

func opened(text string, keys note.Verifiers) string {
	_, err := note.Open([]byte(text), keys)
	var invalid *note.InvalidSignatureError
	var unverified *note.UnverifiedNoteError
	switch {
	case err == nil:
		return "opened"
	case errors.As(err, &invalid):
		return "invalid"
	case errors.As(err, &unverified):
		return "unverified"
	}
	return "malformed"
}

func run(q question) (a answer, err error) {
	tree := tlog.Tree{N: q.Size, Hash: q.Root}
	reader := tlog.TileHashReader(tree, folder(q.Folder))
	for _, entry := range q.Entries {
		leaf, err := reader.ReadHashes([]int64{tlog.StoredHashIndex(0, entry)})
		if err != nil {
			return a, err
		}
		path, err := tlog.ProveRecord(q.Size, entry, reader)
		if err != nil {
			return a, err
		}
		a.Leaves, a.Proofs = append(a.Leaves, leaf[0]), append(a.Proofs, path)
	}
	for _, size := range q.Earlier {
		path, err := tlog.ProveTree(q.Size, size, reader)
		if err != nil {
			return a, err
		}
		a.Prefixes = append(a.Prefixes, path)
	}
	for _, p := range q.Inclusion {
		a.Inclusion = append(a.Inclusion, tlog.CheckRecord(p.Path, p.Size, p.Root, p.Index, p.Hash) == nil)
	}
	for _, p := range q.Consistency {
		a.Consistency = append(a.Consistency, tlog.CheckTree(p.Path, p.Size, p.Root, p.Index, p.Hash) == nil)
	}
	var keys []note.Verifier
	for _, text := range q.Vkeys {
		key, err := note.NewVerifier(text)
		if err != nil {
			return a, err
		}
		keys = append(keys, key)
	}
	for _, text := range q.Notes {
		a.Notes = append(a.Notes, opened(text, note.VerifierList(keys...)))
	}
	return a, nil
}

func main() {
	var q question
	err := json.NewDecoder(os.Stdin).Decode(&q)
	if err == nil {
		var a answer
		if a, err = run(q); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(a)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
