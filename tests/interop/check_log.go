// Command check_log judges a log directory with golang.org/x/mod/sumdb alone.
//
// It reads a JSON description of what the log claims, and prints "ok" or the first disagreement.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type claim struct {
	Directory string
	Key       string
	Entries   []entry
	Heads     []head
}

type entry struct {
	Index int64
	Leaf  []byte
	Path  [][]byte
}

type head struct {
	Size  int64
	Root  []byte
	Proof [][]byte
}

// tileFiles reads tiles in the tlog-tiles layout, whose paths lack the height.
type tileFiles struct{ directory string }

func (t tileFiles) Height() int                         { return 8 }
func (t tileFiles) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (t tileFiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.directory, path))
		if err != nil {
			return nil, err
		}
		all = append(all, data)
	}
	return all, nil
}

func hashes(raw [][]byte) []tlog.Hash {
	list := make([]tlog.Hash, len(raw))
	for i, h := range raw {
		copy(list[i][:], h)
	}
	return list
}

func hash(raw []byte) (h tlog.Hash) {
	copy(h[:], raw)
	return h
}

func openHead(c claim) (tlog.Tree, error) {
	verifier, err := note.NewVerifier(c.Key)
	if err != nil {
		return tlog.Tree{}, err
	}
	data, err := os.ReadFile(filepath.Join(c.Directory, "checkpoint"))
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	return tlog.Tree{N: size, Hash: hash(root)}, err
}

func checkEntries(c claim, tree tlog.Tree, reader tlog.HashReader) error {
	for _, e := range c.Entries {
		leaf := tlog.RecordHash(e.Leaf)
		ours := tlog.RecordProof(hashes(e.Path))
		if err := tlog.CheckRecord(ours, tree.N, tree.Hash, e.Index, leaf); err != nil {
			return fmt.Errorf("inclusion of %d: %v", e.Index, err)
		}
		theirs, err := tlog.ProveRecord(tree.N, e.Index, reader)
		if err != nil {
			return err
		}
		if fmt.Sprint(theirs) != fmt.Sprint(ours) {
			return fmt.Errorf("inclusion path of %d from the tiles is another one", e.Index)
		}
	}
	return nil
}

func checkHeads(c claim, tree tlog.Tree, reader tlog.HashReader) error {
	for _, h := range c.Heads {
		ours := tlog.TreeProof(hashes(h.Proof))
		if err := tlog.CheckTree(ours, tree.N, tree.Hash, h.Size, hash(h.Root)); err != nil {
			return fmt.Errorf("consistency from %d: %v", h.Size, err)
		}
		theirs, err := tlog.ProveTree(tree.N, h.Size, reader)
		if err != nil {
			return err
		}
		if fmt.Sprint(theirs) != fmt.Sprint(ours) {
			return fmt.Errorf("consistency proof from %d by the tiles is another one", h.Size)
		}
	}
	return nil
}

func checkBundle(c claim) error {
	bundle, err := os.ReadFile(filepath.Join(c.Directory, "tile/entries/000"))
	if err != nil {
		return err
	}
	tile, err := os.ReadFile(filepath.Join(c.Directory, "tile/0/000"))
	if err != nil {
		return err
	}
	for i := 0; len(bundle) > 0; i++ {
		size := int(binary.BigEndian.Uint16(bundle))
		leaf := tlog.RecordHash(bundle[2 : 2+size])
		if !bytes.Equal(leaf[:], tile[32*i:32*i+32]) {
			return fmt.Errorf("entry %d of bundle 0 is not the leaf of tile 0", i)
		}
		bundle = bundle[2+size:]
	}
	return nil
}

func main() {
	log.SetFlags(0)
	var c claim
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		log.Fatal(err)
	}
	tree, err := openHead(c)
	if err != nil {
		log.Fatal(err)
	}
	reader := tlog.TileHashReader(tree, tileFiles{c.Directory})
	for _, err := range []error{checkEntries(c, tree, reader), checkHeads(c, tree, reader), checkBundle(c)} {
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("ok")
}
