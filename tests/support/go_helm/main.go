// Renders a chart as `helm template` does and lints it as `helm lint` does, several sets of values in one process.
//
// Usage: helm-check CHART KUBERNETES_VERSION NAME=VALUES_FILE...
// It prints one JSON object: for each NAME its "manifests", by template, and what the linter says, worst first:
// "lint" is a list of {"severity": 0 to 3, "text": ...}; 3 is an error.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
)

type remark struct {
	Severity int    `json:"severity"`
	Text     string `json:"text"`
}

type result struct {
	Manifests map[string]string `json:"manifests"`
	Lint      []remark          `json:"lint"`
	Error     string            `json:"error"`
}

func main() {
	if len(os.Args) < 4 {
		fail(fmt.Errorf("usage: helm-check CHART KUBERNETES_VERSION NAME=VALUES_FILE..."))
	}
	version, err := chartutil.ParseKubeVersion(os.Args[2])
	if err != nil {
		fail(err)
	}
	results := map[string]result{}
	for _, argument := range os.Args[3:] {
		name, file, _ := strings.Cut(argument, "=")
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			fail(err)
		}
		results[name] = check(os.Args[1], version, values)
	}
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		fail(err)
	}
}

func check(folder string, version *chartutil.KubeVersion, values chartutil.Values) result {
	loaded, err := loader.Load(folder)
	if err != nil {
		fail(err)
	}
	manifests, err := render(loaded, version, values)
	if err != nil {
		return result{Error: err.Error()}
	}
	remarks := []remark{}
	for _, message := range lint.AllWithKubeVersion(folder, values, "layercast", version).Messages {
		remarks = append(remarks, remark{message.Severity, message.Error()})
	}
	sort.SliceStable(remarks, func(a, b int) bool { return remarks[a].Severity > remarks[b].Severity })
	return result{Manifests: manifests, Lint: remarks}
}

// As `helm install` makes them: values are checked against the chart's schema, hooks stay in.
func render(loaded *chart.Chart, version *chartutil.KubeVersion, values chartutil.Values) (map[string]string, error) {
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	release := chartutil.ReleaseOptions{Name: "layercast", Namespace: "layercast", Revision: 1, IsInstall: true}
	if version := loaded.Metadata.KubeVersion; version != "" && !chartutil.IsCompatibleRange(version, capabilities.KubeVersion.String()) {
		return nil, fmt.Errorf("the chart wants Kubernetes %s, not %s", version, capabilities.KubeVersion.String())
	}
	prepared, err := chartutil.ToRenderValues(loaded, values, release, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(loaded, prepared)
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
