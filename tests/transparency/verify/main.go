// Verifies a served log with Go's own implementation, given its address and its verifier key. Prints the size.
//
//	verify BASE PREFIX VKEY INDEX
//
// Opens the checkpoint's note, reads the tree's hashes from its tiles with tlog.TileHashReader (which
// authenticates each tile against the root), and checks the record at INDEX, read from its entry bundle.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func get(url string) ([]byte, error) {
	reply, err := http.Get(url)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err == nil && reply.StatusCode != 200 {
		err = fmt.Errorf("%s answered %d: %s", url, reply.StatusCode, body)
	}
	return body, err
}

type tiles struct{ log string }

func (t tiles) Height() int                                { return 8 }
func (t tiles) SaveTiles(tiles []tlog.Tile, data [][]byte) {}

// path is the tile's in C2SP tlog-tiles, which has no height: tile/8/0/000 there is tile/0/000 here.
func path(tile tlog.Tile) string {
	return "/tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
}

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		data, err := get(t.log + path(tile))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

// record returns the entry at an index, from its bundle as the tree's size makes it.
func record(log string, size, index int64) ([]byte, error) {
	tile := tlog.Tile{H: 8, L: -1, N: index / 256, W: int(min(256, size-index/256*256))}
	bundle, err := get(log + "/tile/entries/" + strings.TrimPrefix(tile.Path(), "tile/8/data/"))
	if err == nil {
		for range index % 256 {
			bundle = bundle[2+binary.BigEndian.Uint16(bundle):]
		}
		bundle = bundle[2 : 2+binary.BigEndian.Uint16(bundle)]
	}
	return bundle, err
}

func verify(base, log, key, position string) (int64, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return 0, err
	}
	signed, err := get(base + log + "/checkpoint")
	if err != nil {
		return 0, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return 0, err
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return 0, err
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return 0, err
	}
	index, err := strconv.ParseInt(position, 10, 64)
	if err != nil {
		return 0, err
	}
	entry, err := record(base+log, size, index)
	if err != nil {
		return 0, err
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, tiles{base + log})
	proof, err := tlog.ProveRecord(size, index, hashes)
	if err != nil {
		return 0, err
	}
	return size, tlog.CheckRecord(proof, size, root, index, tlog.RecordHash(entry))
}

func main() {
	size, err := verify(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(size)
}
