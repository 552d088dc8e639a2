"""The paper's claims: what each says, the verdict, and the page that shows them."""
