package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/reference"
	"github.com/containerd/stargz-snapshotter/cache"
	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/fs/config"
	"github.com/containerd/stargz-snapshotter/fs/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// makeLayer turns a tar into an eStargz layer and prints the digest of its table of contents.
func makeLayer(tar, layer string) error {
	in, err := os.Open(tar)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	blob, err := estargz.Build(io.NewSectionReader(in, 0, info.Size()), estargz.WithChunkSize(64<<10))
	if err != nil {
		return err
	}
	defer blob.Close()
	out, err := os.Create(layer)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := io.Copy(out, blob); err != nil {
		return err
	}
	fmt.Println(blob.TOCDigest())
	return nil
}

// readLayer reads as the snapshotter does, by its own reader of registries and through a mirror. The arguments: the
// mirror's HOST:PORT, HOST/REPOSITORY, the layer's digest, that of its table, USER:PASSWORD or "", and then
// NAME:OFFSET:LENGTH of what is to be read. It prints the size of the layer and the sha256 of each part.
func readLayer(arguments []string) error {
	mirror, image, layer, table, login := arguments[0], arguments[1], arguments[2], arguments[3], arguments[4]
	spec, err := reference.Parse(image + ":latest")
	if err != nil {
		return err
	}
	user, password, _ := strings.Cut(login, ":")
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) {
		return user, password, nil
	}))
	hosts := func(reference.Spec) ([]docker.RegistryHost, error) {
		return []docker.RegistryHost{{
			Client:       &http.Client{Transport: &http.Transport{}},
			Authorizer:   authorizer,
			Host:         mirror,
			Scheme:       "http",
			Path:         "/v2",
			Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve,
		}}, nil
	}
	resolver := remote.NewResolver(config.BlobConfig{}, nil)
	descriptor := ocispec.Descriptor{Digest: digest.Digest(layer)}
	blob, err := resolver.Resolve(context.Background(), hosts, spec, descriptor, cache.NewMemoryCache())
	if err != nil {
		return err
	}
	defer blob.Close()
	read := func(part []byte, offset int64) (int, error) { return blob.ReadAt(part, offset) }
	reader, err := estargz.Open(io.NewSectionReader(readerAt(read), 0, blob.Size()))
	if err != nil {
		return err
	}
	if _, err := reader.VerifyTOC(digest.Digest(table)); err != nil {
		return err
	}
	fmt.Println(blob.Size())
	for _, wanted := range arguments[5:] {
		if err := readPart(reader, strings.Split(wanted, ":")); err != nil {
			return err
		}
	}
	return nil
}

func readPart(reader *estargz.Reader, wanted []string) error {
	file, err := reader.OpenFile(wanted[0])
	if err != nil {
		return err
	}
	offset, err := strconv.ParseInt(wanted[1], 10, 64)
	if err != nil {
		return err
	}
	length, err := strconv.Atoi(wanted[2])
	if err != nil {
		return err
	}
	part := make([]byte, length)
	if _, err := file.ReadAt(part, offset); err != nil && err != io.EOF {
		return err
	}
	fmt.Printf("%x\n", sha256.Sum256(part))
	return nil
}

type readerAt func(part []byte, offset int64) (int, error)

func (read readerAt) ReadAt(part []byte, offset int64) (int, error) { return read(part, offset) }
