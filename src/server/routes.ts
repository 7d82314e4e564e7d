/** Which methods there are at an address: for the answer to a method that is not. */

interface KnownRoute {
  readonly form: RegExp;
  readonly methods: Set<string>;
}

export class Routes {
  readonly #byUrl = new Map<string, KnownRoute>();

  /** @param url As the router takes it: "/v1/flows/:flow(^form)::pause". */
  add(method: string | readonly string[], url: string): void {
    let known = this.#byUrl.get(url);
    if (known === undefined) {
      known = { form: formOf(url), methods: new Set() };
      this.#byUrl.set(url, known);
    }
    for (const each of typeof method === "string" ? [method] : method) known.methods.add(each);
  }

  /** In the order of the alphabet; none where there is no such address. */
  methodsAt(path: string): string[] {
    const methods = new Set<string>();
    for (const { form, methods: some } of this.#byUrl.values()) {
      if (form.test(path)) for (const method of some) methods.add(method);
    }
    return [...methods].toSorted();
  }
}

function formOf(url: string): RegExp {
  const text = url.replaceAll(/::|:\w+(?:\(\^?([^)]*)\))?|[.]/g, (part, form?: string) => {
    if (part === "::") return ":";
    if (part === ".") return "\\.";
    return form ?? "[^/]+";
  });
  return new RegExp(`^${text}$`);
}
