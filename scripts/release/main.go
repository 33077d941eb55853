// Command release writes the OCI image layouts of a release, and checks them.
//
//	release write SPEC.json OUT.tar         writes one image for several platforms, and prints its digest
//	release check FILE.tar...               reads everything in the layouts, and prints their names, digests and platforms
//	release export FILE.tar ARCHITECTURE    prints the files of an image as a tar
//
// The same spec and layers always give the same bytes.
package main

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// containerd stores an imported image under the name in this annotation.
const imageName = "io.containerd.image.name"

// Spec describes an image.
type Spec struct {
	// Name is the reference with the tag.
	Name string `json:"name"`
	// Created is the Unix time of everything in the image.
	Created     int64             `json:"created"`
	Annotations map[string]string `json:"annotations"`
	Config      v1.Config         `json:"config"`
	Platforms   []Platform        `json:"platforms"`
}

// Platform is the image for one architecture.
type Platform struct {
	// Architecture is Go's name of it.
	Architecture string `json:"architecture"`
	// Layers are tar files, the lowest first.
	Layers []string `json:"layers"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 3 && arguments[0] == "write":
		return write(arguments[1], arguments[2])
	case len(arguments) > 1 && arguments[0] == "check":
		for _, file := range arguments[1:] {
			if err := check(file); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
		}
		return nil
	case len(arguments) == 3 && arguments[0] == "export":
		return export(arguments[1], arguments[2])
	}
	return errors.New("usage: release write SPEC.json OUT.tar | check FILE.tar... | export FILE.tar ARCHITECTURE")
}

func write(specFile, out string) error {
	text, err := os.ReadFile(specFile)
	if err != nil {
		return err
	}
	var spec Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return fmt.Errorf("%s: %w", specFile, err)
	}
	index, err := build(spec)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "layout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	path, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{imageName: spec.Name})); err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Println(digest)
	return pack(folder, out, time.Unix(spec.Created, 0))
}

// build returns the image for all platforms.
func build(spec Spec) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, platform := range spec.Platforms {
		image, err := buildImage(spec, platform)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: platform.Architecture}},
		})
	}
	return mutate.Annotations(index, spec.Annotations).(v1.ImageIndex), nil
}

func buildImage(spec Spec, platform Platform) (v1.Image, error) {
	created := v1.Time{Time: time.Unix(spec.Created, 0).UTC()}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, file := range platform.Layers {
		layer, err := tarball.LayerFromFile(file, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return nil, err
		}
		addendum := mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: filepath.Base(file)}}
		if image, err = mutate.Append(image, addendum); err != nil {
			return nil, err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created, config.Config = "linux", platform.Architecture, created, spec.Config
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	return mutate.Annotations(image, spec.Annotations).(v1.Image), nil
}

// pack writes a folder into a tar file, sorted and with this time.
func pack(folder, out string, created time.Time) error {
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer file.Close()
	archive := tar.NewWriter(file)
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		header := tar.Header{Name: filepath.ToSlash(name), Mode: 0o644, Size: int64(len(content)), ModTime: created}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	return errors.Join(err, archive.Close(), file.Close())
}

// open returns the image in an unpacked layout, and its name.
func open(file, folder string) (v1.ImageIndex, string, error) {
	if err := unpack(file, folder); err != nil {
		return nil, "", err
	}
	top, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		return nil, "", err
	}
	// Compares every digest and size with the contents.
	if err := validate.Index(top); err != nil {
		return nil, "", err
	}
	manifest, err := top.IndexManifest()
	if err != nil {
		return nil, "", err
	}
	if len(manifest.Manifests) != 1 {
		return nil, "", fmt.Errorf("%d images, expected one", len(manifest.Manifests))
	}
	image := manifest.Manifests[0]
	index, err := top.ImageIndex(image.Digest)
	return index, image.Annotations[imageName], err
}

func check(file string) error {
	folder, err := os.MkdirTemp("", "layout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	index, name, err := open(file, folder)
	if err != nil {
		return err
	}
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	fmt.Print(name, " ", digest)
	for _, image := range manifest.Manifests {
		fmt.Print(" ", image.Platform)
	}
	fmt.Println()
	return nil
}

func export(file, architecture string) error {
	folder, err := os.MkdirTemp("", "layout")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	index, _, err := open(file, folder)
	if err != nil {
		return err
	}
	images, err := partial.FindImages(index, match.Platforms(v1.Platform{OS: "linux", Architecture: architecture}))
	if err != nil {
		return err
	}
	if len(images) != 1 {
		return fmt.Errorf("%s has %d images for %s", file, len(images), architecture)
	}
	files := mutate.Extract(images[0])
	defer files.Close()
	_, err = io.Copy(os.Stdout, files)
	return err
}

// unpack extracts a tar file. A name that leaves the folder is an error.
func unpack(file, folder string) error {
	source, err := os.Open(file)
	if err != nil {
		return err
	}
	defer source.Close()
	root, err := os.OpenRoot(folder)
	if err != nil {
		return err
	}
	defer root.Close()
	for archive := tar.NewReader(source); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := extract(root, header.Name, archive); err != nil {
			return err
		}
	}
}

func extract(root *os.Root, name string, content io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	file, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}
